"""Division by the length of a feature, which may be none: a network of ReLUs can give zeros, or one feature twice."""

from __future__ import annotations

import torch
from torch import Tensor

#: A length up to this is none: of features around 1, float32's rounding alone leaves nearly as much.
NOTHING = 1e-5


def over(x: Tensor, length: Tensor) -> Tensor:
    """x / length; where `length` is none 0 without a gradient, which would be as large as 1 / length."""
    return torch.where(length > NOTHING, x / length.clamp_min(NOTHING), 0.0)


def directions(features: Tensor) -> Tensor:
    """(…, F) → the same features with unit length, or 0."""
    return over(features, torch.linalg.vector_norm(features, dim=-1, keepdim=True))
