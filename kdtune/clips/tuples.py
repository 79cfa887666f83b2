"""The PCL sample, drawn and read: where its three clips lie, which transform they get, how each is augmented.

Legend: B tuples, 3 clips a tuple, T frames, H×W pixels. Everything here is NumPy on the CPU, so that a CPU run and a
CUDA run see the same samples; what is drawn is applied by augment.py and pretext.py on the training device.
Source: PCL's datasets/ucf101.py (load4clips) and train_vcp_contrast.py (preprocess).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdtune.clips.draws import below, uniforms
from kdtune.clips.store import ClipStore
from kdtune.config.sections import AugmentConfig, ClipConfig, PretextConfig
from kdtune.config.trial import TrialConfig

#: The pretext labels. Chance is not 1/5: REMOTE needs room, and is redrawn from the other four where there is none.
NONE, ROTATION, SPATIAL, TEMPORAL, REMOTE = range(5)
PRETEXT_CLASSES = 5
#: Least distance in frames of a remote clip from the tuple.
REMOTE_DISTANCE = 16
#: Order of the quadrants A B C D (row by row) under `pretext.spatial: fixed`.
FIXED_QUADRANTS = (3, 2, 1, 0)


@dataclass(frozen=True)
class ColourDraws:
    """Appearance of each clip, one draw a clip: arrays of shape (B, 3), `order` (B, 3, 4), factors as torchvision's."""

    jitter: np.ndarray
    order: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    hue: np.ndarray
    grey: np.ndarray
    blur: np.ndarray
    sigma: np.ndarray
    flip: np.ndarray
    blur_radius: int  # pixels; from the configuration, never from the batch, so that a clip looks the same in any batch


@dataclass(frozen=True)
class TupleDraws:
    """Everything random about B tuples. `colour` is None for an evaluation's plain centre crops."""

    label: np.ndarray  # (B,) int64, one of the pretext labels
    start: np.ndarray  # (B, 3) int64, first frame of each clip
    crop: np.ndarray  # (B, 3, 2) int64, top and left of each crop in the stored frames
    quarter_turns: np.ndarray  # (B,) 1, 2 or 3, for ROTATION
    quadrants: np.ndarray  # (B, 4) where each quadrant comes from, for SPATIAL
    chunks: np.ndarray  # (B, 4) where each temporal chunk comes from, for TEMPORAL
    colour: ColourDraws | None


def _draw_label(u: np.ndarray, start: int, frames: int, clip: ClipConfig, pretext: PretextConfig) -> tuple[int, int]:
    """(label, start of the middle clip); `u` has at least 5 uniforms, `start` is the tuple's first frame."""
    label, middle = below(u[0], PRETEXT_CLASSES), start + clip.start_stride
    if label != REMOTE:
        return label, middle
    before = start - clip.frames - REMOTE_DISTANCE + 1  # how many places there are on either side
    after = frames - (start + clip.tuple_frames + REMOTE_DISTANCE) - clip.frames + 1
    fits = (before > 0 and after > 0) if pretext.remote == "both" else (before > 0 or after > 0)
    if not fits:
        return below(u[1], PRETEXT_CLASSES - 1), middle
    if after <= 0 or (before > 0 and u[2] < 0.5):
        return REMOTE, below(u[3], before)
    return REMOTE, start + clip.tuple_frames + REMOTE_DISTANCE + below(u[4], after)


def _draw_quadrants(u: float, pretext: PretextConfig) -> Sequence[int]:
    if pretext.spatial == "fixed":
        return FIXED_QUADRANTS
    # The u-th of the 23 orders other than the identity.
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
    """Draw the tuples of `samples` (B,), videos of `lengths` (B,) frames.

    `train` False gives centre crops without augmentation. A sample's draws depend on nothing but the arguments that
    name it, so they are the same in any batch, at any data fraction, in any process.
    """
    clip, count = config.clip, len(samples)
    draws = TupleDraws(
        label=np.zeros(count, np.int64),
        start=np.zeros((count, 3), np.int64),
        crop=np.zeros((count, 3, 2), np.int64),
        quarter_turns=np.zeros(count, np.int64),
        quadrants=np.zeros((count, 4), np.int64),
        chunks=np.zeros((count, 4), np.int64),
        colour=_draw_colour(config.augment, seed, purpose, epoch, samples) if train else None,
    )
    room = np.array(clip.stored_size) - clip.size
    for i, (sample, frames) in enumerate(zip(samples.tolist(), lengths.tolist(), strict=True)):
        u = uniforms(10, seed=seed, purpose=f"{purpose}/tuple", epoch=epoch, sample=sample)
        start = below(u[0], frames - clip.tuple_frames + 1)
        draws.start[i] = start + clip.start_stride * np.arange(3)
        draws.label[i], draws.start[i, 1] = _draw_label(u[1:6], start, frames, clip, config.pretext)
        draws.quarter_turns[i] = 1 + below(u[6], 3)
        draws.quadrants[i] = _draw_quadrants(u[7], config.pretext)
        draws.chunks[i] = _draw_chunks(u[8:10], config.pretext)
        for c in range(3):
            where = uniforms(2, seed=seed, purpose=f"{purpose}/crop", epoch=epoch, sample=sample, clip=c)
            draws.crop[i, c] = np.floor(where * (room + 1)) if train else room // 2
    return draws


def _draw_colour(augment: AugmentConfig, seed: int, purpose: str, epoch: int, samples: np.ndarray) -> ColourDraws:
    u = np.array(
        [
            [uniforms(13, seed=seed, purpose=f"{purpose}/colour", epoch=epoch, sample=s, clip=c) for c in range(3)]
            for s in samples.tolist()
        ]
    ).reshape(len(samples), 3, 13)

    def factor(column: int, strength: float) -> np.ndarray:
        low = max(0.0, 1.0 - strength)  # torchvision's ColorJitter range
        return low + u[..., column] * (1.0 + strength - low)

    low, high = augment.blur_sigma
    return ColourDraws(
        jitter=u[..., 0] < augment.jitter_p,
        brightness=factor(1, augment.brightness),
        contrast=factor(2, augment.contrast),
        saturation=factor(3, augment.saturation),
        hue=(2 * u[..., 4] - 1) * augment.hue,
        order=np.argsort(u[..., 5:9], axis=-1, kind="stable"),
        grey=u[..., 9] < augment.grey_p,
        blur=u[..., 10] < augment.blur_p,
        sigma=low + u[..., 11] * (high - low),
        flip=u[..., 12] < augment.flip_p,
        blur_radius=augment.blur_radius,
    )


def read_clips(clips: ClipStore, rows: np.ndarray, start: np.ndarray, crop: np.ndarray, clip: ClipConfig) -> np.ndarray:
    """Cut clips out of the stored frames, touching those frames only.

    rows (B,) of the store's index, start (B, n), crop (B, n, 2) → uint8 (B, n, T, size, size, 3).
    """
    count, n = start.shape
    out = np.empty((count, n, clip.frames, clip.size, clip.size, 3), np.uint8)
    for i, row in enumerate(rows.tolist()):
        video = clips.frames(row)
        for c in range(n):
            first, (top, left) = start[i, c], crop[i, c]
            out[i, c] = video[first : first + clip.frames, top : top + clip.size, left : left + clip.size]
    return out
