"""Draw how each clip of a sample looks: crop position, colours, blur and flip. augment.py applies the draws.

Legend: B samples of n clips, T frames a clip.

Draws are made once per clip, or once per frame with `augment.per: frame`. PCL's datasets/ucf101.py seeds Python's
generator before each frame so that the frames of a clip share their draws, but newer torchvision versions draw from
torch's generator. There each frame gets its own crop, jitter, grey, flip and decision to blur; only σ, which PCL draws
from Python's generator, is still shared by the clip. The first frame gets the draws that the clip would have.
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
    """Arrays of shape (B, n), one draw per clip, or (B, n, T), one per frame. Factors follow torchvision."""

    jitter: np.ndarray
    order: np.ndarray  # (…, 4), order of the operations: 0 brightness, 1 contrast, 2 saturation, 3 hue
    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    hue: np.ndarray
    grey: np.ndarray
    blur: np.ndarray
    sigma: np.ndarray
    flip: np.ndarray
    blur_radius: int  # pixels; from the configuration, not the batch, so that a clip looks the same in any batch

    @property
    def per_frame(self) -> bool:
        return self.flip.ndim == 3

    def of(self, which: slice) -> ColourDraws:
        """Return the draws of k of the N clips or frames, as arrays of shape (k,) and (k, 4)."""
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        own: dict[str, Any] = {
            name: value.reshape(-1, *value.shape[self.flip.ndim :])[which] for name, value in arrays.items()
        }
        return replace(self, **own)

    def of_clips(self, which: list[int]) -> ColourDraws:
        """Return the draws of the clips `which` of each sample, as arrays of shape (B, len(which)) or with T behind."""
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        own: dict[str, Any] = {name: value[:, which] for name, value in arrays.items()}
        return replace(self, **own)


def draw_appearance(
    config: TrialConfig, n: int, *, seed: int, purpose: str, epoch: int, samples: np.ndarray, train: bool
) -> tuple[np.ndarray, ColourDraws | None]:
    """Return the crops (top, left) and colours of `n` clips for each of `samples` (B,).

    The crops are int64 of shape (B, n, 2) or, drawn per frame, (B, n, T, 2). With `train` False they are centred and
    the colours are None.
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
    """Turn uniforms `u` (…, 13) into colour draws of shape (…)."""

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
