"""What a file says: its text, its values, and what is wrong with them."""
