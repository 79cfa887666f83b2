"""The rules of a sweep that span several fields."""
