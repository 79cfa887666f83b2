"""Max-pooling with deterministic gradients on CUDA, the same in every version of torch.

On CUDA, torch's own backward adds the gradients of overlapping windows atomically, in the order of threads; older
versions refuse that under `use_deterministic_algorithms`. On the CPU torch's gradients are deterministic and are used.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Values for time, height and width.
Triple = tuple[int, int, int]


class OrderedMaxPool3d(torch.autograd.Function):
    """F.max_pool3d of (B, C, T, H, W) or (C, T, H, W), with the gradient summed over the window's offsets one by one.

    At one offset, no two windows cover the same position of the input, so the order of threads does not matter. The
    last offset comes first: each position then receives its windows' gradients in the order of the windows, as torch
    adds them on the CPU, so that the sums have the same bits.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Triple, stride: Triple, padding: Triple) -> Tensor:
        pooled, indices = F.max_pool3d(x, kernel, stride, padding, return_indices=True)
        ctx.save_for_backward(indices)
        ctx.shape, ctx.windows = x.shape, (kernel, stride, padding)
        last = x.is_contiguous(memory_format=torch.channels_last_3d) and not x.is_contiguous()
        ctx.layout = torch.channels_last_3d if last else torch.contiguous_format
        return pooled

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (indices,) = ctx.saved_tensors
        kernel, stride, padding = ctx.windows
        size, count = ctx.shape[-3:], indices.shape[-3:]
        _, height, width = size

        # Distance of each maximum from the first position of its window, counted along the flattened T·H·W.
        starts = [
            torch.arange(n, device=indices.device) * s - p for n, s, p in zip(count, stride, padding, strict=True)
        ]
        behind = indices - ((starts[0][:, None, None] * height + starts[1][:, None]) * width + starts[2])

        around = [n + 2 * p for n, p in zip(size, padding, strict=True)]
        padded = gradient.new_zeros((*ctx.shape[:-3], *around)).contiguous(memory_format=ctx.layout)
        for offset in reversed(list(itertools.product(*map(range, kernel)))):
            # Positions in the padding share the numbers of others; what they receive is cut off below.
            here = behind == (offset[0] * height + offset[1]) * width + offset[2]
            t, h, w = (slice(first, first + n * s, s) for first, n, s in zip(offset, count, stride, strict=True))
            padded[..., t, h, w].add_(gradient.where(here, 0))
        t, h, w = (slice(p, p + n) for p, n in zip(padding, size, strict=True))
        return padded[..., t, h, w].contiguous(memory_format=ctx.layout), None, None, None


class MaxPool3d(nn.MaxPool3d):
    """torch's MaxPool3d, without dilation and ceil_mode; on CUDA it uses OrderedMaxPool3d's gradient."""

    kernel_size: Triple
    stride: Triple
    padding: Triple

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
    ) -> None:
        stride = kernel_size if stride is None else stride
        super().__init__(_triple(kernel_size), _triple(stride), _triple(padding))

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda:
            return OrderedMaxPool3d.apply(x, self.kernel_size, self.stride, self.padding)
        return super().forward(x)


def replace_max_pools(network: nn.Module) -> None:
    """Replace each nn.MaxPool3d in `network` by our MaxPool3d. Pools hold no tensors, so state dicts do not change.

    Raises ValueError for a pool with dilation, ceil_mode or return_indices.
    """
    for parent in list(network.modules()):
        for name, pool in list(parent.named_children()):
            if type(pool) is nn.MaxPool3d:
                if _triple(pool.dilation) != (1, 1, 1) or pool.ceil_mode or pool.return_indices:
                    raise ValueError(f"pools must not use dilation, ceil_mode or return_indices, got {pool}")
                setattr(parent, name, MaxPool3d(pool.kernel_size, pool.stride, pool.padding))


def _triple(value: int | Sequence[int]) -> Triple:
    if isinstance(value, int):
        return value, value, value
    time, height, width = value
    return time, height, width
