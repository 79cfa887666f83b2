"""Ray itself: start it on this machine, connect to a cluster, check its machines, submit jobs."""
