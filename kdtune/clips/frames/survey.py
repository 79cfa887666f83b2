"""Estimate, before decoding, how many bytes the frames will need, and choose the tier that suits the machine."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdtune.clips.frames.tiers import Tier, missing_codec
from kdtune.clips.machine import amount
from kdtune.clips.video.decode import first_frame, header_frames

#: Number of videos, evenly spaced in the catalog, whose first frames show how large JPEGs will be.
SAMPLED = 32
#: Size of JPEG over raw frames where no first frame can be read: natural videos at 4:4:4, quality 95.
JPEG_SHARE = 0.2


@dataclass(frozen=True)
class Survey:
    """What the videos' headers promise. A video that cannot be opened counts as having no frames."""

    frames: tuple[int, ...]  # frame count of each video
    raw_frame: int  # bytes of a raw frame
    jpeg_frame: float  # mean bytes of a JPEG frame

    def bytes(self, tier: Tier, start: int = 0) -> int:
        """Estimate the disk space, in bytes, for storing the videos from row `start` on.

        The longest video counts twice: while it is appended, two copies exist.
        """
        frames, frame = self.frames[start:], self.raw_frame if tier.name == "raw" else self.jpeg_frame
        return round((sum(frames) + max(frames, default=0)) * frame)


def survey(paths: Sequence[Path], size: tuple[int, int], quality: int, threads: int) -> Survey:
    """Read every video's header and the first frame of a sample."""
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
    """Return the tier for frames that need `raw` or `jpeg` bytes, given the bytes of memory and of free disk; and why.

    The tier is raw if the frames fit on the disk and in half of the memory, so that the page cache keeps all of them
    beside the trials; else JPEG. The reason is a message for people, empty for raw.
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
