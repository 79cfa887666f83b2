"""A sweep while it runs: on a terminal, in a pipe, from another machine."""
