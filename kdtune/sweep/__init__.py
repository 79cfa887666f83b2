"""Many trials: which are asked for, which stop early, and where they run."""
