"""The search: which trials a sweep asks for, in which order, and which stop early."""
