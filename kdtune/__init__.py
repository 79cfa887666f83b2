"""kdtune: sweeps over knowledge distillation of self-supervised video models, bit for bit repeatable."""

__version__ = "0.1.0"
