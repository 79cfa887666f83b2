"""`plan`: what a sweep would run, and what that costs."""
