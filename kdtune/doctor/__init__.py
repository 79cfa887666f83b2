"""Check whether this machine is ready for sweeps, and which of its sockets other machines can reach."""
