"""Fit a sweep to a folder of videos: data set, clips, batch, validation, blocks and epochs.

The first choice follows the videos' number, length and size. Warnings on few videos (sweep/few_videos.py) are then
mended until none is left, or nothing mends what is left.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kdtune.clips.catalog import DataSet, video_path
from kdtune.clips.headers import Headers, read_headers
from kdtune.clips.layout.names import problem
from kdtune.clips.machine import cores, gpus
from kdtune.config.inherit import RawConfig
from kdtune.config.load import check_sweep
from kdtune.config.sweep import SweepConfig
from kdtune.errors import DataError
from kdtune.names import LONGEST_NAME
from kdtune.plan.understand import understood
from kdtune.store import StoreFiles
from kdtune.sweep.few_videos import DataWarning, data_warnings
from kdtune.sweep.shortages import Videos
from kdtune.train.prepared import Prepared

#: Clips to choose from, as frames and interval, longest first: for a GPU from the first on, for a CPU from the third.
CLIPS = ((16, 8), (10, 8), (8, 8), (8, 4), (8, 2), (8, 0), (4, 2), (4, 0))
#: Share of the videos that have room for a tuple of clips.
ROOM = 0.95
#: Sides of a crop, in pixels, without and with a GPU.
SIZES = {False: 32, True: 112}
#: Width to height of PCL's frames, 128×171. Videos within this factor of it are stored in that shape.
PCL_SHAPE, NEAR = 171 / 128, 1.15
#: Training steps to aim at, and the fewest and most epochs, without and with a GPU.
STEPS = {False: 800, True: 60_000}
EPOCHS = {False: (8, 40), True: (50, 200)}
#: Fewest training videos of a block with a quarter of the data.
QUARTER = 48
#: Rounds of mending: a mend may call for another, as more validation leaves fewer training videos.
ROUNDS = 5


@dataclass
class Fit:
    """A sweep that suits a folder."""

    data_set: DataSet
    headers: Headers
    raw: RawConfig
    """The sweep, as a file holds it."""
    left: list[DataWarning] = field(default_factory=list)
    """Warnings that no setting mends."""

    @property
    def sweep(self) -> SweepConfig:
        return check_sweep(self.raw)


def fit(folder: str, store: StoreFiles) -> Fit:
    """Return a sweep for the videos in `folder`. Raises DataError where `data prepare` refuses the folder."""
    data_set = understood(folder)
    root = Path(data_set.data.folder)
    paths = [video_path(root, video) for video in data_set.catalog["video"]]
    headers = read_headers(paths, cores())
    if not len(headers.frames):
        raise DataError([problem(root, "holds no file that can be opened as a video")])
    found = Fit(data_set, headers, first_choice(data_set, headers, gpu=gpus() > 0))
    for _ in range(ROUNDS):
        found.left = data_warnings(found.sweep, Prepared(store))
        if not any(warning.changes for warning in found.left):
            break
        for warning in found.left:
            warning.apply(found.raw)
    return found


def first_choice(data_set: DataSet, headers: Headers, *, gpu: bool) -> RawConfig:
    """Return a sweep, as a file holds it, for the data set's size and its videos' lengths and pictures."""
    data = data_set.data
    videos, given = Videos.of(data, data_set.catalog), "val" in set(data_set.catalog["split"])
    clip = clip_for(headers, gpu=gpu)
    batch = max(2, min(16 if gpu else 8, _power_of_two(videos.pool // 4)))
    fractions = [1.0, 0.25] if videos.pool // 4 >= max(QUARTER, 4 * batch, 2 * videos.classes) else []
    fewest, most = EPOCHS[gpu]
    epochs = int(np.clip(STEPS[gpu] * batch // max(1, videos.pool), fewest, most)) // 4 * 4
    width = {} if gpu else {"width": 8}
    second = {"backbone": "c3d"} if clip["frames"] >= 8 else {"backbone": "r3d", "depth": 18}
    teachers = [str(second["backbone"]), "r21d"]
    loss = {"contrast": "memory_bank", "negatives": 1024} if videos.pool >= 2048 else {"contrast": "in_batch"}
    return {
        "name": sweep_name(data.folder),
        "question": (
            f"Which teacher, λ, τ and α make an R3D best on {sweep_name(data.folder)}, "
            "and does distillation beat training from scratch?"
        ),
        "trial": {
            "data": data.model_dump(exclude_unset=True) | ({} if given else {"validation": data.validation}),
            "student": {"backbone": "r3d", **width},
            "clip": clip,
            "loss": loss,
            "optimizer": {"batch": batch},
            "epochs": epochs,
            "stages": {"early": epochs // 4, "mid": epochs * 3 // 4, "late": epochs},
            **({} if gpu else {"evaluation": {"clips": 4}, "memory_format": "channels_last"}),
        },
        "teachers": {
            teachers[0]: {"student": {**second, **width}, "data": {"fraction": 1.0}},
            "r21d": {"student": {"backbone": "r21d", **width}, "data": {"fraction": 1.0}},
        },
        "search": {
            "space": {
                "teacher": teachers,
                "lambda": {"log": [0.05, 5.0]},
                "tau": {"range": [1.0, 8.0]},
                "alpha": {"range": [0.1, 1.0]},
            },
            **({"blocks": {"data.fraction": fractions}} if fractions else {}),
            "controls": [{"teacher": "none"}],
            "sampler": "tpe",
            "candidates": 8,
            "seeds": [0, 1, 2],
            "window": 4,
        },
        "objective": {"metric": "knn", "split": "validation", "stage": "late"},
        "prune": {"at": ["early", "mid"], "keep": 0.5, "min_peers": 2},
        "resources": {"cpu": 3, "gpu": 0.25} if gpu else {"cpu": 1, "gpu": 0},
    }


def clip_for(headers: Headers, *, gpu: bool) -> RawConfig:
    """Return the section `clip`: the longest clips that the videos have room for, of their shape, never enlarged."""
    choices = CLIPS if gpu else CLIPS[2:]
    fits = (choice for choice in choices if headers.share_of(3 * choice[0] + 2 * choice[1]) >= ROOM)
    frames, interval = next(fits, CLIPS[-1])
    height, width = float(np.median(headers.heights)), float(np.median(headers.widths))
    short = min(height, width)
    size = max(16, min(SIZES[gpu], int(short * 112 / 128) // 2 * 2))
    clip: RawConfig = {"frames": frames, "size": size, "interval": interval}
    shape = width / height
    if not PCL_SHAPE / NEAR < shape < PCL_SHAPE * NEAR:
        scale = (128 * size + 56) // 112 / short
        clip["resize"] = [max(size, round(height * scale)), max(size, round(width * scale))]
    return clip


def sweep_name(folder: str) -> str:
    """Return a name for a sweep on the videos of a folder."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(folder).absolute().resolve().name).lstrip("_.-")
    return name[:LONGEST_NAME] or "videos"


def _power_of_two(number: int) -> int:
    """Return the largest power of two that is at most `number`, which is at least 1."""
    return 1 << (max(1, number).bit_length() - 1)
