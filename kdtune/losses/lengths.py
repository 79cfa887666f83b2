"""Safe division by the length of a feature, which may be 0: a ReLU network can output zeros or equal features."""

from __future__ import annotations

import torch
from torch import Tensor

#: Lengths up to this count as 0: for features around 1, float32's rounding alone leaves nearly as much.
EPS = 1e-5


def safe_divide(x: Tensor, length: Tensor) -> Tensor:
    """Return x / length; where `length` is at most EPS, 0 without a gradient, which could reach 1 / length."""
    return torch.where(length > EPS, x / length.clamp_min(EPS), 0.0)


def unit_vectors(features: Tensor) -> Tensor:
    """Scale features (…, F) to unit length; features of length 0 become 0."""
    return safe_divide(features, torch.linalg.vector_norm(features, dim=-1, keepdim=True))
