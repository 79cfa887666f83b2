"""Shows a sweep while it runs: on a terminal, in a pipe, or from another machine."""
