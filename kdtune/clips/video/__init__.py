"""Read one video: open and check its file, decode it, turn it upright."""
