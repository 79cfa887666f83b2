"""The terms of the loss, one idea a file."""
