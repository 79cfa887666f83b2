"""What happened in a sweep, read in one place."""
