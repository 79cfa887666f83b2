"""Which videos a data set has: the layouts of folders and lists that people have, read with everything that is odd."""
