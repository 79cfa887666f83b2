"""Trial and sweep configurations: validation, canonical form and key."""
