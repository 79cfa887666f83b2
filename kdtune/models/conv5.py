"""The features of PCL's retrieval: the last convolution's output ("conv5"), max-pooled in space and flattened.

Source: PCL's models/r3d.py, r21d.py and c3d.py with `return_conv=True`, as retrieve_clips.py builds them: MaxPool3d of
1×2×2, 9,216 features for a clip of 16 frames at 112². PCL's R3D-18 (models/network.py) lacks that option: its
published figures use the 512 pooled features.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

#: PCL's feature_pool: time, height, width.
WINDOW = (1, 2, 2)


def with_conv5(backbone: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pooled and the conv5 features of clips (B, 3, T, H, W).

    The pooled features (B, F) have the bits of `backbone(x)`. The conv5 features are (B, D), where
    D = channels · frames · ⌊side/2⌋² of the last stage. `config.network.SMALLEST_CONV5` lists the possible backbones.
    """
    seen: list[Tensor] = []
    last = backbone.get_submodule("layers" if hasattr(backbone, "layers") else "layer4")
    handle = last.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        pooled = backbone(x)
    finally:
        handle.remove()
    (maps,) = seen
    if maps.ndim == 4:  # tdn_light: (B·T, C, h, w)
        maps = maps.unflatten(0, (len(x), -1)).transpose(1, 2)
    return pooled, F.max_pool3d(maps, WINDOW).flatten(1)
