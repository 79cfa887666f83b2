"""Apply the pretext transforms to the middle clip of each tuple after normalisation (PCL's preprocess).

Legend: clips (B, n, C, T, H, W). Labels: 0 none, 1 rotation, 2 spatial, 3 temporal, 4 remote. read_clips already reads
a remote clip from its place.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kdtune.clips.tuples import PRETEXT_CLASSES, ROTATION, SPATIAL, TEMPORAL, EachLabelDraws, TupleDraws

#: Places in the clips of `each_middle` of the three clips that are asked under each label.
QUESTIONS = tuple((0, 1 + label, 1 + PRETEXT_CLASSES) for label in range(PRETEXT_CLASSES))
#: The labels that change the middle clip's pixels.
TRANSFORMED = (ROTATION, SPATIAL, TEMPORAL)


def transform_middle(clips: Tensor, draws: TupleDraws) -> Tensor:
    """Return `clips` with n = 3, clip 1 of each tuple transformed by its label. Does not change the input."""
    out = clips.clone()
    for i in np.flatnonzero(np.isin(draws.label, TRANSFORMED)).tolist():
        out[i, 1] = _transformed(clips[i, 1], draws, i, int(draws.label[i]))
    return out


def each_middle(clips: Tensor, draws: EachLabelDraws) -> Tensor:
    """Return the clips of each tuple's five questions, n = 7: the first, five middle ones in label order, the last.

    `clips` has n = 4: the tuple's three and, between the middle and the last, the remote one.
    """
    first, middle, remote, last = clips.unbind(1)
    out = torch.stack((first, *[middle] * (PRETEXT_CLASSES - 1), remote, last), dim=1)
    for i in range(len(out)):
        for label in TRANSFORMED:
            out[i, 1 + label] = _transformed(middle[i], draws, i, label)
    return out


def _transformed(clip: Tensor, draws: TupleDraws, i: int, label: int) -> Tensor:
    """Return `clip` (C, T, H, W) of sample `i`, transformed by a label of TRANSFORMED."""
    if label == ROTATION:
        return torch.rot90(clip, int(draws.quarter_turns[i]), (-2, -1))
    if label == SPATIAL:
        return permute_quadrants(clip, draws.quadrants[i].tolist())
    return permute_chunks(clip, draws.chunks[i].tolist())


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
