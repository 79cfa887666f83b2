"""Augment whole batches on the training device, with explicit parameters drawn by appearance.py.

Legend: N = B·n clips, shape (N, 3, T, H, W), float32 in [0, 1]. The order of operations follows PCL's transforms:
colour jitter, grey, Gaussian blur, flip, normalisation; crops are cut when the clips are read. The formulas are
torchvision's for float images. Each frame uses its clip's parameters; with draws per frame, each frame is treated as a
clip of one frame.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from kdtune.clips.appearance import ColourDraws

#: ImageNet statistics, as in PCL.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Values per chunk on a CPU: a chunk stays in a core's cache through all operations.
CHUNK_VALUES = 5 * 2**17
#: Lower bound of divisors that may be 0.
EPS = 1e-30


def augment(clips: Tensor, colour: ColourDraws | None, normalize: bool = True) -> Tensor:
    """Augment uint8 (B, n, T, H, W, 3) clips; return float32 (B, n, 3, T, H, W).

    With `normalize` the result is normalised by ImageNet's statistics, else it is in [0, 1]. `colour` None leaves the
    appearance unchanged.
    """
    batch, n, frames, height, width, _ = clips.shape
    per_frame = colour is not None and colour.per_frame
    parts = clips.flatten(0, 2).unsqueeze(1) if per_frame else clips.flatten(0, 1)
    size = len(parts) if clips.is_cuda else max(1, CHUNK_VALUES // parts[0].numel())
    out = torch.empty(len(parts), 3, parts.shape[1], height, width, device=clips.device)
    for first in range(0, len(parts), size):
        at = slice(first, first + size)
        out[at] = _appearance(parts[at], None if colour is None else colour.of(at), normalize)
    if per_frame:
        out = out.squeeze(2).unflatten(0, (batch * n, frames)).transpose(1, 2).contiguous()
    return out.unflatten(0, (batch, n))


def _appearance(parts: Tensor, colour: ColourDraws | None, normalize: bool) -> Tensor:
    """Augment uint8 (N, T, H, W, 3) with the draws of these N clips; return float32 (N, 3, T, H, W)."""
    x = parts.permute(0, 4, 1, 2, 3).contiguous().float().div_(255)
    if colour is not None:
        x = _jitter(x, colour)
        x = _on_subset(x, colour.grey, lambda part, _: _grey(part).repeat(1, 3, 1, 1, 1))
        radius = colour.blur_radius
        x = _on_subset(x, colour.blur, lambda part, at: _blur(part, colour.sigma[at], radius))
        x = _on_subset(x, colour.flip, lambda part, _: part.flip(-1))
    if normalize:
        mean = torch.tensor(MEAN, device=x.device).view(1, 3, 1, 1, 1)
        std = torch.tensor(STD, device=x.device).view(1, 3, 1, 1, 1)
        x = (x - mean).div_(std)
    return x


def residual(clips: Tensor) -> Tensor:
    """Return roll(x, 1, T) − x over the frames of `clips` (…, T, H, W). Frame 0 is last − first, as in PCL."""
    return clips.roll(1, -3) - clips


def _on_subset(x: Tensor, chosen: np.ndarray, change: Callable[[Tensor, np.ndarray], Tensor]) -> Tensor:
    """Apply `change` to the clips of `x` (N, …) where `chosen` (N,) is true. May work in place."""
    where = np.flatnonzero(chosen)
    if len(where) == 0:
        return x
    if len(where) == len(x):
        return change(x, where)
    index = torch.from_numpy(where).to(x.device)
    return x.index_copy_(0, index, change(x.index_select(0, index), where))


def _column(values: np.ndarray, chosen: np.ndarray, like: Tensor) -> Tensor:
    """Return the parameters of the k chosen clips, shaped (k, 1, 1, 1, 1) for broadcasting."""
    return torch.from_numpy(values[chosen]).to(like).view(-1, 1, 1, 1, 1)


def _jitter(x: Tensor, colour: ColourDraws) -> Tensor:
    """Apply ColorJitter: the four operations, in each clip's own order."""
    operations = (
        (_brightness, colour.brightness),
        (_contrast, colour.contrast),
        (_saturation, colour.saturation),
        (_hue, colour.hue),
    )
    for turn in range(4):
        for which, (operation, factors) in enumerate(operations):
            chosen = colour.jitter & (colour.order[:, turn] == which)
            x = _on_subset(x, chosen, partial(_with_factor, operation, factors))
    return x


Operation = Callable[[Tensor, Tensor], Tensor]


def _with_factor(operation: Operation, factors: np.ndarray, part: Tensor, at: np.ndarray) -> Tensor:
    return operation(part, _column(factors, at, part))


def _grey(x: Tensor) -> Tensor:
    red, green, blue = x.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * x + (1 - factor) * other).clamp_(0, 1)


def _brightness(x: Tensor, factor: Tensor) -> Tensor:
    return (factor * x).clamp_(0, 1)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    return _blend(x, _grey(x).mean((1, 3, 4), keepdim=True), factor)


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    return _blend(x, _grey(x), factor)


def _hue(x: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue of `x` by `shift`, in fractions of a full circle, through HSV."""
    red, green, blue = x.unbind(1)
    high, low = x.amax(1), x.amin(1)
    spread = high - low
    saturation = spread / high.clamp_min(EPS)  # 0 for a grey pixel, as are r, g and b
    divisor = spread.clamp_min(EPS)
    r, g, b = (high - red) / divisor, (high - green) / divisor, (high - blue) / divisor
    hue = torch.where(high == red, b - g, torch.where(high == green, 2 + r - b, 4 + g - r))
    hue = (hue / 6 + 1).frac_()
    hue += shift.squeeze(1)
    hue -= hue.floor()
    # HSV to RGB: channel n is v − v·s·clamp(min(k, 4 − k), 0, 1) with k = (n + 6h) mod 6, n = 5, 3, 1.
    channels = []
    for n in (5, 3, 1):
        k = n + 6 * hue
        k -= 6 * (k >= 6)
        channels.append(high - high * saturation * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, 1)


def _blur(x: Tensor, sigma: np.ndarray, radius: int) -> Tensor:
    """Apply a separable Gaussian with `sigma` (N,) in pixels: one matrix per clip, multiplied from both sides."""
    matrix = torch.from_numpy(_blur_matrices(sigma, radius, x.shape[-1])).to(x).unsqueeze(1)
    return (matrix @ x.flatten(1, 2) @ matrix.mT).view_as(x)


def _blur_matrices(sigma: np.ndarray, radius: int, size: int) -> np.ndarray:
    """Return blur matrices (N, size, size) float32 for `sigma` (N,).

    Row i holds the weights of the 2·radius + 1 neighbours of pixel i, reflected at the borders. As matrices, a blur is
    two BLAS products, about ten times faster on a CPU than summing shifted copies.
    """
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    weights /= weights.sum(1, keepdims=True)
    at = np.abs(np.arange(size)[:, None] + offsets)  # reflect without repeating the border
    at = np.where(at >= size, 2 * (size - 1) - at, at)
    matrices = np.zeros((len(sigma), size, size))
    for tap in range(len(offsets)):
        matrices[:, np.arange(size), at[:, tap]] += weights[:, tap, None]
    return matrices.astype(np.float32)
