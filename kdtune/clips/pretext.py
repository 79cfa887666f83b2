"""Apply the pretext transforms to the middle clip of each tuple after normalisation (PCL's preprocess).

Legend: clips (B, 3, C, T, H, W). Labels: 0 none, 1 rotation, 2 spatial, 3 temporal, 4 remote. read_clips already reads
a remote clip from its place.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kdtune.clips.tuples import ROTATION, SPATIAL, TEMPORAL, TupleDraws


def transform_middle(clips: Tensor, draws: TupleDraws) -> Tensor:
    """Return `clips` with clip 1 of each tuple transformed by its label. Does not change the input."""
    out = clips.clone()
    for i in np.flatnonzero(np.isin(draws.label, (ROTATION, SPATIAL, TEMPORAL))).tolist():
        middle = clips[i, 1]
        if draws.label[i] == ROTATION:
            out[i, 1] = torch.rot90(middle, int(draws.quarter_turns[i]), (-2, -1))
        elif draws.label[i] == SPATIAL:
            out[i, 1] = permute_quadrants(middle, draws.quadrants[i].tolist())
        else:
            out[i, 1] = permute_chunks(middle, draws.chunks[i].tolist())
    return out


def permute_quadrants(clip: Tensor, order: list[int]) -> Tensor:
    """Move quadrant order[k] of `clip` (C, T, H, W) to place k, numbered row by row. H and W must be even."""
    height, width = clip.shape[-2] // 2, clip.shape[-1] // 2
    part = [clip[..., y : y + height, x : x + width] for y in (0, height) for x in (0, width)]
    rows = [torch.cat((part[order[k]], part[order[k + 1]]), -1) for k in (0, 2)]
    return torch.cat(rows, -2)


def permute_chunks(clip: Tensor, order: list[int]) -> Tensor:
    """Cut the T frames of `clip` (C, T, H, W) into four chunks of ⌈T/4⌉ (the last may be shorter) and reorder them."""
    chunks = torch.chunk(clip, 4, dim=1)
    return torch.cat([chunks[k] for k in order], 1)
