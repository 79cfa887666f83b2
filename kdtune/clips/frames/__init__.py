"""The ClipStore: build, check, repair and read the decoded frames of a data set."""
