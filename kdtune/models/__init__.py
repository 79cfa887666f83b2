"""The networks: backbones and their heads."""
