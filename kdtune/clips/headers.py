"""Read what videos say of themselves, without decoding them: length and size of the pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdtune.clips.video.opening import open_video
from kdtune.clips.video.pictures import picture_header
from kdtune.clips.video.promise import header_promise

#: Maximum number of files that are opened, evenly spaced in the catalog.
SAMPLED = 256


@dataclass(frozen=True)
class Headers:
    """Lengths and sizes of the videos of a sample, as their headers state them. Only preparing them finds out."""

    frames: np.ndarray  # (V,) frame counts, ascending
    heights: np.ndarray  # (V,) pixels
    widths: np.ndarray  # (V,) pixels
    unreadable: tuple[Path, ...]
    """Files of the sample that cannot be opened as videos."""

    def share_of(self, frames: int) -> float:
        """Return the share of the videos that have at least this number of frames."""
        return float((self.frames >= frames).mean()) if len(self.frames) else 0.0


def read_headers(paths: Sequence[Path], threads: int) -> Headers:
    """Open a sample of the files. Never raises for a file: one that is no video is counted as unreadable."""
    some = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, SAMPLED).astype(int))]
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(_header, some))
    rows = np.array(sorted(row for row in found if row is not None), dtype=np.int64).reshape(-1, 3)
    unreadable = tuple(path for path, row in zip(some, found, strict=True) if row is None)
    return Headers(rows[:, 0], rows[:, 1], rows[:, 2], unreadable)


def _header(path: Path) -> tuple[int, int, int] | None:
    """Return frames, height and width; None where the file is no video."""
    try:
        if os.path.isdir(path):
            return picture_header(path)
        with open_video(path) as (container, stream):
            return header_promise(container, stream, path.stat().st_size), stream.height, stream.width
    except Exception:  # whatever a library raises on a broken file; preparing it reports the reason
        return None
