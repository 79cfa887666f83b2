"""Networks for tests, and clips for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdtune.config.network import NetworkConfig
from kdtune.config.sections import ClipConfig
from kdtune.models.backbones import build_backbone


def network(
    backbone: str, depth: int = 10, width: int = 64, shape: tuple[int, int] = (4, 16), seed: int | None = None
) -> nn.Module:
    if seed is not None:
        torch.manual_seed(seed)
    # Only tests use clips that are too short for a tuple's transforms.
    clip = ClipConfig.model_construct(frames=shape[0], size=shape[1])
    return build_backbone(NetworkConfig(backbone=backbone, depth=depth, width=width), clip)


def clips(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))
