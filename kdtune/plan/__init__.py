"""What a sweep would run, and what that costs."""
