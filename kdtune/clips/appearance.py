"""How each clip of a sample looks: the place of its crop, its colours, its blur, its flip; drawn, not yet applied.

Legend: B samples of n clips, T frames a clip.

A draw belongs to a clip, or with `augment.per: frame` to a frame: PCL's datasets/ucf101.py seeds Python's generator
before each frame, so that the frames of a clip share their draws, but a newer torchvision draws with torch's. Then each
frame has its own crop, jitter, grey and flip, and is blurred or not on its own; only σ, which PCL itself draws with
Python's generator, is still the clip's. The first frame has the draws that the clip would have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kdtune.clips.draws import uniforms
from kdtune.config.sections import AugmentConfig
from kdtune.config.trial import TrialConfig


@dataclass(frozen=True)
class ColourDraws:
    """Arrays of shape (B, n), drawn for each clip, or (B, n, T), for each frame; factors as torchvision's."""

    jitter: np.ndarray
    order: np.ndarray  # (…, 4), which of brightness, contrast, saturation, hue comes first, second, …
    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    hue: np.ndarray
    grey: np.ndarray
    blur: np.ndarray
    sigma: np.ndarray
    flip: np.ndarray
    blur_radius: int  # pixels; from the configuration, never from the batch, so that a clip looks the same in any batch

    @property
    def per_frame(self) -> bool:
        return self.flip.ndim == 3

    def of(self, which: slice) -> ColourDraws:
        """The draws of some of all N clips or frames, in arrays of shape (k,) and (k, 4)."""
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        own: dict[str, Any] = {
            name: value.reshape(-1, *value.shape[self.flip.ndim :])[which] for name, value in arrays.items()
        }
        return replace(self, **own)


def draw_appearance(
    config: TrialConfig, n: int, *, seed: int, purpose: str, epoch: int, samples: np.ndarray, train: bool
) -> tuple[np.ndarray, ColourDraws | None]:
    """The crops of `n` clips of each of `samples` (B,), int64 (B, n, 2) or (B, n, T, 2): top and left; and the colours.

    `train` False gives centre crops and no colours.
    """
    room = np.array(config.clip.stored_size) - config.clip.size
    if not train:
        return np.tile(room // 2, (len(samples), n, 1)), None
    per_frame = config.augment.per == "frame"
    frames = config.clip.frames if per_frame else 1

    def draw(what: str, columns: int) -> np.ndarray:
        u = [
            uniforms(frames * columns, seed=seed, purpose=f"{purpose}/{what}", epoch=epoch, sample=sample, clip=c)
            for sample in samples.tolist()
            for c in range(n)
        ]
        by_frame = np.array(u).reshape(len(samples), n, frames, columns)
        return by_frame if per_frame else by_frame[:, :, 0]

    return np.floor(draw("crop", 2) * (room + 1)).astype(np.int64), _colour(draw("colour", 13), config.augment)


def _colour(u: np.ndarray, augment: AugmentConfig) -> ColourDraws:
    """`u` (…, 13) uniforms."""

    def factor(column: int, strength: float) -> np.ndarray:
        low = max(0.0, 1.0 - strength)  # torchvision's ColorJitter range
        return low + u[..., column] * (1.0 + strength - low)

    low, high = augment.blur_sigma
    sigma = low + u[..., 11] * (high - low)
    if augment.per == "frame":
        sigma = np.broadcast_to(sigma[..., :1], sigma.shape)
    return ColourDraws(
        jitter=u[..., 0] < augment.jitter_p,
        brightness=factor(1, augment.brightness),
        contrast=factor(2, augment.contrast),
        saturation=factor(3, augment.saturation),
        hue=(2 * u[..., 4] - 1) * augment.hue,
        order=np.argsort(u[..., 5:9], axis=-1, kind="stable"),
        grey=u[..., 9] < augment.grey_p,
        blur=u[..., 10] < augment.blur_p,
        sigma=sigma,
        flip=u[..., 12] < augment.flip_p,
        blur_radius=augment.blur_radius,
    )
