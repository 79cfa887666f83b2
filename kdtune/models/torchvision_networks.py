"""torchvision's video networks as backbones: clips (B, 3, T, H, W) in, pooled features (B, F) out.

They are torchvision's own modules without the classifier, so torchvision's state dicts fit once `fc.*`, `classifier.*`
or `head.*` is left out. Five more things differ from torchvision:

- Dropout and stochastic depth are off. They would draw from torch's global generators, which trials do not use.
- S3D ends in the global average. torchvision's windows of 2×7×7 do not fit small clips, and their gradient is not
  deterministic on CUDA. Where 2×7×7 features are left, as for 16 frames at 224², the two are equal.
- S3D's batch normalisation has momentum 0.1, as everywhere else. With torchvision's 0.001 the running statistics, and
  with them every evaluation, stay near their initial values for a thousand steps.
- MViT is built for the trial's clips. At 16×224² it equals torchvision's, tensor for tensor; for other clips its
  position tables have other lengths, and torchvision's weights do not fit.
- S3D and MViT use our max-pools, which give the same values and deterministic gradients on CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torchvision.models import get_model, get_model_builder
from torchvision.models.video import S3D, MViT
from torchvision.models.video.mvit import MSBlockConfig, MultiscaleBlock
from torchvision.ops import StochasticDepth

from kdtune.config.sections import ClipConfig
from kdtune.models.pools import replace_max_pools
from kdtune.models.published import CLASSIFIERS


def build_torchvision(name: str, clip: ClipConfig) -> nn.Module:
    """Return torchvision's network `name`, without classifier, with random weights from torch's generator."""
    network = _mvit(get_model_builder(name), clip) if name.startswith("mvit") else get_model(name)
    for part in network.modules():
        if isinstance(part, nn.Dropout | StochasticDepth):
            part.p = 0.0
    for classifier in CLASSIFIERS:
        if hasattr(network, classifier):
            setattr(network, classifier, nn.Identity())
    if isinstance(network, S3D):
        network.avgpool = nn.Identity()  # S3D's forward averages over space and time after the classifier anyway.
        for part in network.modules():
            if isinstance(part, nn.BatchNorm3d):
                part.momentum = 0.1
    replace_max_pools(network)
    return network


def _mvit(builder: Callable[..., nn.Module], clip: ClipConfig) -> MViT:
    """Build an MViT for our clips from the block settings of torchvision's builder, which fixes 16×224²."""
    blocks: list[dict[str, Any]] = []

    def record(**settings: Any) -> nn.Module:
        blocks.append(settings)
        return nn.Identity()

    with torch.device("meta"):
        builder(block=record)
    shared = ("residual_pool", "residual_with_cls_embed", "rel_pos_embed", "proj_after_attn")
    # The patches' convolution rounds up, but MViT counts patches by rounding down.
    frames, side = -(-clip.frames // 2), -(-clip.size // 4)
    return MViT(
        spatial_size=(4 * side, 4 * side),
        temporal_size=2 * frames,
        block_setting=[settings["cnf"] for settings in blocks],
        block=_FittingBlocks(side),
        **{name: blocks[0][name] for name in shared},
    )


class _FittingBlocks:
    """Makes MViT's blocks in order, each with as many relative positions as its features have.

    torchvision counts positions by rounding down, but its convolutions round up: at 112² the last block sees 4×4
    features and gets a table for 3×3. torchvision then interpolates the table, which is not deterministic on CUDA.
    """

    def __init__(self, side: int) -> None:
        self.side = side
        """Height and width of the next block's input features."""

    def __call__(self, *, input_size: list[int], cnf: MSBlockConfig, **settings: Any) -> MultiscaleBlock:
        queries, keys = (stride[1] if stride else 1 for stride in (cnf.stride_q, cnf.stride_kv))
        # The table covers the finer of the two grids. A side that its stride divides is not rounded.
        finer = min(queries, keys)
        side = -(-self.side // finer) * finer
        self.side = -(-self.side // queries)
        return MultiscaleBlock([input_size[0], side, side], cnf, **settings)
