"""The synthetic motions as a ClipStore, straight from their pictures: neither files nor a codec are needed.

What FFmpeg decodes may change with its version; these frames are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kdtune.clips.catalog import COLUMNS
from kdtune.clips.motion import frames_of, groups_to_test, videos_of
from kdtune.clips.store import ClipStore, write_frames, write_record


def rendered_clips(
    folder: Path, size: tuple[int, int], *, classes: tuple[str, ...], groups: int, clips: int, seed: int = 0
) -> ClipStore:
    """Make classes × groups × clips videos at `size` = (height, width) in the new `folder`; split as `data synth`."""
    folder.mkdir(parents=True)
    test = groups_to_test(groups, 1)

    def rendered() -> Iterator[tuple[dict[str, Any], np.ndarray, str]]:
        # Sorted by name, as every catalog.
        for video in sorted(videos_of(seed, classes, groups, clips), key=lambda video: video.name):
            pictures = [image.resize(size[::-1], Image.Resampling.BOX) for image in frames_of(video)]
            row = {
                "video": video.name,
                "label": classes.index(video.action),
                "action": video.action,
                "split": "test" if video.group in test else "train",
                "group": f"{video.group:02d}",
            }
            yield row, np.stack([np.asarray(picture) for picture in pictures]), "rendered"

    totals = write_frames(folder, rendered(), COLUMNS)
    write_record(folder, size, {**totals, "refused": 0, "manifest": totals["digest"], "decoders": {}})
    return ClipStore.open(folder)
