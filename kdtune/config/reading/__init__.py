"""Read a file: its text, its values, and the problems in them."""
