"""What the records of trials say, and whether they are damaged."""
