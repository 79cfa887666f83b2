"""Run a sweep: the driver, the backends and, for Ray, the clusters."""
