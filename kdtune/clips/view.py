"""Show a sample's clips to a network with another clip length or frame size: same moments, same image regions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from kdtune.clips.frames.store import ClipStore
from kdtune.clips.tuples import ClipDraws
from kdtune.config.sections import ClipConfig


def draws_for_view(draws: ClipDraws, clip: ClipConfig, view: ClipConfig, lengths: np.ndarray) -> ClipDraws:
    """Return draws for `view` that show what `draws` show for `clip`, in videos of `lengths` (B,) frames.

    A clip of another length keeps its middle, but is shifted where it would leave the video; if the video is shorter
    than the clip, it is centred on the video. A crop of another size keeps its centre in the picture, to the nearest
    pixel. The blur's σ keeps its ratio to the crop's size. All other draws are unchanged.
    """
    start, crop, colour = draws.start, draws.crop, draws.colour
    if view.frames != clip.frames:
        last = (lengths - view.frames)[:, None]
        middle = start + (clip.frames - view.frames) // 2
        start = np.where(last >= 0, np.clip(middle, 0, np.maximum(last, 0)), last // 2)
    if view.size != clip.size:
        stored, its = np.array(clip.stored_size), np.array(view.stored_size)
        crop = np.floor((crop + clip.size / 2) * its / stored - view.size / 2 + 0.5).astype(np.int64)
        crop = np.clip(crop, 0, its - view.size)
        if colour is not None:
            larger = view.size / clip.size
            radius = min(math.ceil(colour.blur_radius * larger), view.size - 1)
            colour = replace(colour, sigma=colour.sigma * larger, blur_radius=radius)
    return replace(draws, start=start, crop=crop, colour=colour)


class EdgePadded:
    """The frames of a ClipStore, with each video's first and last frame repeated beyond its ends."""

    def __init__(self, clips: ClipStore, lengths: np.ndarray) -> None:
        self.clips, self.lengths = clips, lengths

    def clip(self, row: int, start: int, count: int, /) -> np.ndarray:
        """Return (count, h, w, 3) uint8 like `ClipStore.clip`. `start` may be negative."""
        frames = int(self.lengths[row])
        first, end = max(start, 0), min(start + count, frames)
        video = self.clips.clip(row, first, end - first)
        if len(video) == count:
            return video
        return video[np.clip(np.arange(start, start + count), 0, frames - 1) - first]
