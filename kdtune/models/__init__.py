"""The networks: backbones and the heads on them."""
