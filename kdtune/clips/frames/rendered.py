"""Write the synthetic motions straight into a ClipStore, without video files or a codec.

Frames that FFmpeg decodes may change with its version; these frames are the same on every machine.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from kdtune.clips.catalog import COLUMNS
from kdtune.clips.frames.store import ClipStore
from kdtune.clips.frames.tiers import Frame, Tier
from kdtune.clips.frames.writing import StoreWriter, write_part
from kdtune.clips.motion import frames_of, groups_to_test, videos_of


def rendered_clips(
    folder: Path, size: tuple[int, int], *, classes: tuple[str, ...], groups: int, clips: int, seed: int = 0
) -> ClipStore:
    """Make a ClipStore of classes × groups × clips videos at `size` = (height, width) in `folder`, which must be new.

    The videos are split as `data synth` splits them.
    """
    folder.mkdir(parents=True)
    test = groups_to_test(groups, 1)
    # Every catalog is sorted by name.
    videos = sorted(videos_of(seed, classes, groups, clips), key=lambda video: video.name)
    rows = [
        (v.name, classes.index(v.action), v.action, "test" if v.group in test else "train", f"{v.group:02d}")
        for v in videos
    ]
    writer = StoreWriter(folder, size, Tier("raw"))
    for number, video in enumerate(videos):
        pictures = (image.resize(size[::-1], Image.Resampling.BOX) for image in frames_of(video))
        frames = (Frame(t, np.asarray(picture), "rendered") for t, picture in enumerate(pictures))
        writer.add(write_part(writer.part_path(number), writer.tier, frames))
    writer.finish(pd.DataFrame(rows, columns=COLUMNS), {"decoders": {}})
    writer.clear(folder)
    return ClipStore.open(folder)
