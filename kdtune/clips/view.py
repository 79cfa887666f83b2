"""A sample's clips as another network sees them: more or fewer frames of its moments, another size of its places."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from kdtune.clips.store import ClipStore
from kdtune.clips.tuples import ClipDraws
from kdtune.config.sections import ClipConfig


def viewed(draws: ClipDraws, clip: ClipConfig, view: ClipConfig, lengths: np.ndarray) -> ClipDraws:
    """Return the draws for `view` that show what `draws` show for `clip`, of videos of `lengths` (B,) frames.

    A clip of other frames has the same middle, but is moved into the video where it would reach beyond; of a video that
    is shorter than the clip, it has the video's middle. A crop of another size has the same centre in the picture, to
    the nearest pixel. The blur's σ is the same share of the crop; all else is the same.
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


class Repeating:
    """The frames of a ClipStore, with the first and the last of each video repeated beyond its ends."""

    def __init__(self, clips: ClipStore, lengths: np.ndarray) -> None:
        self.clips, self.lengths = clips, lengths

    def clip(self, row: int, start: int, count: int, /) -> np.ndarray:
        """(count, h, w, 3) uint8, as `ClipStore.clip`; `start` may be negative."""
        frames = int(self.lengths[row])
        first, end = max(start, 0), min(start + count, frames)
        video = self.clips.clip(row, first, end - first)
        if len(video) == count:
            return video
        return video[np.clip(np.arange(start, start + count), 0, frames - 1) - first]
