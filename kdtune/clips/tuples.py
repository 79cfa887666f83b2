"""Draw and read samples: PCL's tuple of three clips with its pretext transform, or a single clip of an action.

Legend: B samples of n clips (3 or 1), T frames. Everything here is NumPy on the CPU, so that CPU and CUDA runs see the
same samples. augment.py and pretext.py apply the draws on the training device.
Source: PCL's datasets/ucf101.py (load4clips, UCF101Dataset) and train_vcp_contrast.py (preprocess).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kdtune.clips.appearance import ColourDraws, draw_appearance
from kdtune.clips.draws import below, uniforms
from kdtune.config.sections import ClipConfig, PretextConfig
from kdtune.config.trial import TrialConfig

#: The pretext labels. They are not equally frequent: where a video is too short, REMOTE is redrawn from the others.
NONE, ROTATION, SPATIAL, TEMPORAL, REMOTE = range(5)
PRETEXT_LABELS = ("none", "rotation", "spatial", "temporal", "remote")
PRETEXT_CLASSES = len(PRETEXT_LABELS)
#: Clips of a video that is asked under each label: the tuple's outer ones, and a middle one for each label.
EACH_LABEL_CLIPS = 2 + PRETEXT_CLASSES
#: Minimum distance of a remote clip from the tuple, in frames.
REMOTE_DISTANCE = 16
#: Order of the quadrants A B C D (row by row) under `pretext.spatial: fixed`.
FIXED_QUADRANTS = (3, 2, 1, 0)


@dataclass(frozen=True)
class ClipDraws:
    """All random draws of B samples of n clips. `colour` is None for the plain centre crops of an evaluation."""

    start: np.ndarray  # (B, n) int64, first frame of each clip
    crop: np.ndarray  # (B, n, 2) or, drawn per frame, (B, n, T, 2) int64, top and left in the stored frames
    colour: ColourDraws | None


@dataclass(frozen=True)
class TupleDraws(ClipDraws):
    """All random draws of B tuples of 3 clips. Clip 1, the middle one, gets the transform of the label."""

    label: np.ndarray  # (B,) int64, one of the pretext labels
    quarter_turns: np.ndarray  # (B,) 1, 2 or 3, for ROTATION
    quadrants: np.ndarray  # (B, 4) source of each quadrant, for SPATIAL
    chunks: np.ndarray  # (B, 4) source of each temporal chunk, for TEMPORAL


@dataclass(frozen=True)
class EachLabelDraws(TupleDraws):
    """All random draws of B tuples that are asked under each label.

    `start`, `crop` and `colour` have n = 4 clips: the tuple's three and, between the middle and the last, the remote
    one. `label` is (B, 5).
    """


def _draw_label(u: np.ndarray, start: int, frames: int, clip: ClipConfig, pretext: PretextConfig) -> tuple[int, int]:
    """Return the label and the middle clip's start, from ≥ 5 uniforms `u` and the tuple's first frame `start`."""
    label, middle = below(u[0], PRETEXT_CLASSES), start + clip.start_stride
    if label != REMOTE:
        return label, middle
    room = _remote_room(start, frames, clip)
    if not (all(room) if pretext.remote == "both" else any(room)):
        return below(u[1], PRETEXT_CLASSES - 1), middle
    return REMOTE, _draw_remote(u[2:5], start, frames, clip)


def _remote_room(start: int, frames: int, clip: ClipConfig) -> tuple[int, int]:
    """Return the number of starts of a remote clip before and after a tuple that begins at frame `start`."""
    before = start - clip.frames - REMOTE_DISTANCE + 1
    after = frames - (start + clip.tuple_frames + REMOTE_DISTANCE) - clip.frames + 1
    return max(before, 0), max(after, 0)


def _draw_remote(u: np.ndarray, start: int, frames: int, clip: ClipConfig) -> int:
    """Return the start of a remote clip that fits, from 3 uniforms."""
    before, after = _remote_room(start, frames, clip)
    if after == 0 or (before > 0 and u[0] < 0.5):
        return below(u[1], before)
    return start + clip.tuple_frames + REMOTE_DISTANCE + below(u[2], after)


def _draw_places(u: np.ndarray, frames: int, clip: ClipConfig, pretext: PretextConfig) -> tuple[int, int]:
    """Return the starts of a tuple and of its remote clip in a video of `frames` frames, from 5 uniforms.

    The tuple lies where its remote clip fits. Where none fits, the tuple is at one end of the video and the remote clip
    at the other.
    """
    last = frames - clip.tuple_frames
    from_here = clip.frames + REMOTE_DISTANCE  # a remote clip fits before the tuple from this start on,
    to_here = last - from_here  # and after it up to this one
    fitting = [*range(from_here, to_here + 1)]
    if pretext.remote == "either":
        fitting = [*range(to_here + 1), *range(max(from_here, to_here + 1), last + 1)]
    if fitting:
        start = fitting[below(u[0], len(fitting))]
        return start, _draw_remote(u[2:5], start, frames, clip)
    return (0, frames - clip.frames) if u[1] < 0.5 else (last, 0)


def _draw_quadrants(u: float, pretext: PretextConfig) -> Sequence[int]:
    if pretext.spatial == "fixed":
        return FIXED_QUADRANTS
    # Pick one of the 23 orders other than the identity.
    rest, order, code = [0, 1, 2, 3], [], 1 + below(u, 23)
    for radix in (6, 2, 1, 1):
        order.append(rest.pop(code // radix))
        code %= radix
    return order


def _draw_chunks(u: np.ndarray, pretext: PretextConfig) -> Sequence[int]:
    first = below(u[0], 4 if pretext.temporal == "any" else 3)
    second = (first + 1 + below(u[1], 3)) % 4 if pretext.temporal == "any" else first + 1
    order = [0, 1, 2, 3]
    order[first], order[second] = order[second], order[first]
    return order


def draw_tuples(
    config: TrialConfig, *, seed: int, purpose: str, epoch: int, samples: np.ndarray, lengths: np.ndarray, train: bool
) -> TupleDraws:
    """Draw the tuples of `samples` (B,), whose videos have `lengths` (B,) frames.

    `train` False gives centre crops without augmentation. A sample's draws depend only on the arguments that identify
    it, so they are the same in any batch, at any data fraction and in any process.
    """
    clip, count = config.clip, len(samples)
    crop, colour = draw_appearance(config, 3, seed=seed, purpose=purpose, epoch=epoch, samples=samples, train=train)
    draws = TupleDraws(
        start=np.zeros((count, 3), np.int64),
        crop=crop,
        colour=colour,
        label=np.zeros(count, np.int64),
        quarter_turns=np.zeros(count, np.int64),
        quadrants=np.zeros((count, 4), np.int64),
        chunks=np.zeros((count, 4), np.int64),
    )
    for i, (sample, frames) in enumerate(zip(samples.tolist(), lengths.tolist(), strict=True)):
        u = uniforms(10, seed=seed, purpose=f"{purpose}/tuple", epoch=epoch, sample=sample)
        start = below(u[0], frames - clip.tuple_frames + 1)
        draws.start[i] = start + clip.start_stride * np.arange(3)
        draws.label[i], draws.start[i, 1] = _draw_label(u[1:6], start, frames, clip, config.pretext)
        draws.quarter_turns[i] = 1 + below(u[6], 3)
        draws.quadrants[i] = _draw_quadrants(u[7], config.pretext)
        draws.chunks[i] = _draw_chunks(u[8:10], config.pretext)
    return draws


def draw_each_label(
    config: TrialConfig, *, seed: int, purpose: str, epoch: int, samples: np.ndarray, lengths: np.ndarray, train: bool
) -> EachLabelDraws:
    """Draw tuples of `samples` (B,) that are asked under each label, at the same places and with the same appearance.

    The labels' own parameters and the appearance are those of draw_tuples; only the places differ, so that a remote
    clip fits (_draw_places).
    """
    drawn = draw_tuples(config, seed=seed, purpose=purpose, epoch=epoch, samples=samples, lengths=lengths, train=train)
    start = np.zeros((len(samples), 4), np.int64)
    for i, (sample, frames) in enumerate(zip(samples.tolist(), lengths.tolist(), strict=True)):
        u = uniforms(5, seed=seed, purpose=f"{purpose}/places", epoch=epoch, sample=sample)
        first, remote = _draw_places(u, frames, config.clip, config.pretext)
        start[i] = first + config.clip.start_stride * np.array([0, 1, 0, 2])
        start[i, 2] = remote
    looks = [0, 1, 1, 2]  # the remote clip looks like the middle one that it replaces
    return EachLabelDraws(
        start=start,
        crop=drawn.crop[:, looks],
        colour=None if drawn.colour is None else drawn.colour.of_clips(looks),
        label=np.tile(np.arange(PRETEXT_CLASSES), (len(samples), 1)),
        quarter_turns=drawn.quarter_turns,
        quadrants=drawn.quadrants,
        chunks=drawn.chunks,
    )


def draw_clips(
    config: TrialConfig, *, seed: int, purpose: str, epoch: int, samples: np.ndarray, lengths: np.ndarray, train: bool
) -> ClipDraws:
    """Draw one clip for each of `samples` (B,), with a uniform start in videos of `lengths` (B,) frames.

    Follows PCL's UCF101Dataset; everything else is as in draw_tuples.
    """
    crop, colour = draw_appearance(config, 1, seed=seed, purpose=purpose, epoch=epoch, samples=samples, train=train)
    start = np.zeros((len(samples), 1), np.int64)
    for i, (sample, frames) in enumerate(zip(samples.tolist(), lengths.tolist(), strict=True)):
        u = uniforms(1, seed=seed, purpose=f"{purpose}/clip", epoch=epoch, sample=sample)
        start[i] = below(u[0], frames - config.clip.frames + 1)
    return ClipDraws(start, crop, colour)


class Frames(Protocol):
    """A source of frames, such as a ClipStore."""

    def clip(self, row: int, start: int, count: int, /) -> np.ndarray:
        """Return `count` frames from `start` on of the video in `row`, (count, h, w, 3) uint8."""


def read_clips(clips: Frames, rows: np.ndarray, start: np.ndarray, crop: np.ndarray, clip: ClipConfig) -> np.ndarray:
    """Cut clips out of the stored frames; return uint8 (B, n, T, size, size, 3).

    Args:
        clips: the stored frames; only those that the clips need are read.
        rows: (B,) rows of the store's index.
        start: (B, n) first frame of each clip.
        crop: (B, n, 2) or (B, n, T, 2) top and left of each crop.
        clip: length and size of the clips.
    """
    (count, n), frames, size = start.shape, clip.frames, clip.size
    out = np.empty((count, n, frames, size, size, 3), np.uint8)
    for i, (row, starts) in enumerate(zip(rows.tolist(), start.tolist(), strict=True)):
        # Read overlapping clips as one piece, so that a frame stored as a JPEG is decoded once.
        first, length = min(starts), max(starts) - min(starts) + frames
        together = clips.clip(row, first, length) if length <= n * frames else None
        for c, at in enumerate(starts):
            video = clips.clip(row, at, frames) if together is None else together[at - first : at - first + frames]
            if crop.ndim == 3:
                top, left = crop[i, c].tolist()
                out[i, c] = video[:, top : top + size, left : left + size]
            else:
                for t, (top, left) in enumerate(crop[i, c].tolist()):
                    out[i, c, t] = video[t, top : top + size, left : left + size]
    return out
