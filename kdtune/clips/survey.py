"""Before the first video is decoded: how many bytes its frames will need, and in which tier they are best kept."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdtune.clips.decode import first_frame, header_frames
from kdtune.clips.machine import amount
from kdtune.clips.tiers import Tier, missing_codec

#: So many videos, evenly spaced in the catalog, tell by their first frames how large JPEGs will be.
SAMPLED = 32
#: Where no first frame can be had: of natural videos at 4:4:4, quality 95.
JPEG_SHARE = 0.2


@dataclass(frozen=True)
class Survey:
    """What the headers promise; a video that cannot be opened has no frames."""

    frames: tuple[int, ...]  # of each video
    raw_frame: int  # bytes
    jpeg_frame: float  # bytes, on average

    def bytes(self, tier: Tier, start: int = 0) -> int:
        """About what the videos from row `start` on need on the disk until they are stored.

        A video that is appended is there twice for a moment: the longest one counts twice.
        """
        frames, frame = self.frames[start:], self.raw_frame if tier.name == "raw" else self.jpeg_frame
        return round((sum(frames) + max(frames, default=0)) * frame)


def survey(paths: Sequence[Path], size: tuple[int, int], quality: int, threads: int) -> Survey:
    """Look at every video's header, and at the first frame of some."""
    with ThreadPoolExecutor(threads) as pool:
        frames = tuple(pool.map(header_frames, paths))
    raw_frame = 3 * size[0] * size[1]
    jpegs = []
    if missing_codec() is None:
        some = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, SAMPLED).astype(int))]
        pictures = (first_frame(path, size) for path in some)
        jpegs = [len(Tier("jpeg", quality).encode(picture)) for picture in pictures if picture is not None]
    return Survey(frames, raw_frame, float(np.mean(jpegs)) if jpegs else JPEG_SHARE * raw_frame)


def choose(raw: int, jpeg: int, quality: int, memory: int, disk: int) -> tuple[Tier, str]:
    """The tier for frames that need `raw` or `jpeg` bytes, where there are so many of memory and of free disk.

    Raw, where half of the memory can hold the frames, so that the page cache keeps them all beside the trials, and the
    disk can, too; else JPEG. Also returns why, for people; nothing where it is raw.
    """
    why = []
    if raw > memory // 2:
        why.append(f"half of the memory is {amount(memory // 2)}")
    if raw > disk:
        why.append(f"the disk has {amount(disk)} free")
    if not why:
        return Tier("raw"), ""
    kept = f"kept as JPEG (quality {quality}, about {amount(jpeg)}); clip.tier: raw overrides"
    return Tier("jpeg", quality), f"clips: about {amount(raw)} as raw frames, {' and '.join(why)}: {kept}"
