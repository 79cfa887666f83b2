"""What is measured of a trial: a network's figures on videos, its cost, and the load of its machine."""
