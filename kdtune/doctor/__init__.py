"""Whether this machine is ready, and what of it others can reach."""
