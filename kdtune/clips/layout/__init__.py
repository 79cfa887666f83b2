"""Find the videos of a data set: read the usual layouts of folders and lists, with all their oddities."""
