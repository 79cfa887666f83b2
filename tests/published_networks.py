"""PCL's and VCOP's networks, rewritten from their description with their names, as a reference for imported weights.

Sources: BestJuly/Pretext-Contrastive-Learning (models/vcopn.py), xudejing/video-clip-order-prediction (models/r3d.py),
BestJuly/IIC (models/r21d.py, c3d.py). Theirs have width 64; tests use smaller widths.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdtune.config.trial import TrialConfig
from kdtune.errors import StoreError


class Full(nn.Module):
    """R3DNet's convolution, in its own module."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        padding = tuple(k // 2 for k in kernel)
        self.temporal_spatial_conv = nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.temporal_spatial_conv(x)


class Factorised(nn.Module):
    """R2Plus1DNet's convolution: space, normalisation, time, with as many parameters as the full convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        t, h, w = kernel
        middle = t * h * w * inputs * outputs // (h * w * inputs + t * outputs)
        space = {"stride": (1, *stride[1:]), "padding": (0, h // 2, w // 2), "bias": False}
        time = {"stride": (stride[0], 1, 1), "padding": (t // 2, 0, 0), "bias": False}
        self.spatial_conv = nn.Conv3d(inputs, middle, (1, h, w), **space)
        self.bn = nn.BatchNorm3d(middle)
        self.temporal_conv = nn.Conv3d(middle, outputs, (t, 1, 1), **time)

    def forward(self, x: Tensor) -> Tensor:
        return self.temporal_conv(F.relu(self.bn(self.spatial_conv(x))))


class Block(nn.Module):
    def __init__(self, conv: type[Full] | type[Factorised], inputs: int, outputs: int, downsample: bool) -> None:
        super().__init__()
        stride = (2, 2, 2) if downsample else (1, 1, 1)
        if downsample:
            self.downsampleconv = conv(inputs, outputs, (1, 1, 1), stride)
            self.downsamplebn = nn.BatchNorm3d(outputs)
        self.conv1 = conv(inputs, outputs, (3, 3, 3), stride)
        self.bn1 = nn.BatchNorm3d(outputs)
        self.conv2 = conv(outputs, outputs, (3, 3, 3), (1, 1, 1))
        self.bn2 = nn.BatchNorm3d(outputs)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + (self.downsamplebn(self.downsampleconv(x)) if self.downsample else x))


class Layer(nn.Module):
    def __init__(
        self, conv: type[Full] | type[Factorised], inputs: int, outputs: int, size: int, downsample: bool
    ) -> None:
        super().__init__()
        self.block1 = Block(conv, inputs, outputs, downsample)
        self.blocks = nn.ModuleList([Block(conv, outputs, outputs, False) for _ in range(size - 1)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.block1(x)
        for block in self.blocks:
            x = block(x)
        return x


class Residual(nn.Module):
    """R3DNet or R2Plus1DNet. `classes` is for ft_classify.py, `return_conv` for retrieve_clips.py."""

    return_conv = False

    def __init__(self, conv: type[Full] | type[Factorised], blocks: int, width: int, classes: int | None) -> None:
        super().__init__()
        self.conv1 = conv(3, width, (3, 7, 7), (1, 2, 2))
        self.bn1 = nn.BatchNorm3d(width)
        for i in range(4):
            inputs, outputs = width * 2 ** max(0, i - 1), width * 2**i
            self.add_module(f"conv{i + 2}", Layer(conv, inputs, outputs, blocks, downsample=i > 0))
        if classes is not None:
            self.linear = nn.Linear(8 * width, classes)
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for i in range(2, 6):
            x = self.get_submodule(f"conv{i}")(x)
        if self.return_conv:
            return F.max_pool3d(x, (1, 2, 2)).flatten(1)
        x = F.adaptive_avg_pool3d(x, 1).flatten(1)
        return x if self.classes is None else self.linear(x)


class C3D(nn.Module):
    return_conv = False

    def __init__(self, width: int, classes: int | None) -> None:
        super().__init__()
        inputs = 3
        for name, multiple in zip(
            ("1", "2", "3a", "3b", "4a", "4b", "5a", "5b"), (1, 2, 4, 4, 8, 8, 8, 8), strict=True
        ):
            self.add_module(f"conv{name}", nn.Conv3d(inputs, multiple * width, 3, padding=1))
            self.add_module(f"bn{name}", nn.BatchNorm3d(multiple * width))
            inputs = multiple * width
        if classes is not None:
            self.linear = nn.Linear(inputs, classes)
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        for stage in (("1",), ("2",), ("3a", "3b"), ("4a", "4b"), ("5a", "5b")):
            for name in stage:
                x = F.relu(self.get_submodule(f"bn{name}")(self.get_submodule(f"conv{name}")(x)))
            if stage != ("5a", "5b"):
                x = F.max_pool3d(x, (1, 2, 2) if stage == ("1",) else 2)
        if self.return_conv:
            return F.max_pool3d(x, (1, 2, 2)).flatten(1)
        x = F.adaptive_avg_pool3d(x, 1).flatten(1)
        return x if self.classes is None else self.linear(x)


class Projector(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.mlp(x)
        return x / x.norm(dim=1, keepdim=True)


class VCPN(nn.Module):
    """PCL's pre-training network: one backbone on three clips, pretext head on all, projector on the outer two."""

    def __init__(self, base: nn.Module, size: int, outputs: int = 5, projection: int | None = 128) -> None:
        super().__init__()
        self.base_network = base
        self.fc = nn.Linear(3 * size, outputs)
        if projection is not None:
            self.projector = Projector(size, projection)

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = [self.base_network(clips[:, c]) for c in range(3)]
        return self.fc(torch.cat(features, 1)), self.projector(features[0]), self.projector(features[2])


def base_network(backbone: str, depth: int = 10, width: int = 4, classes: int | None = None) -> nn.Module:
    """Return their r3d, r21d or c3d with random weights and statistics, in evaluation mode."""
    if backbone == "c3d":
        return C3D(width, classes)
    return Residual(Full if backbone == "r3d" else Factorised, 1 if depth == 10 else 2, width, classes)


def randomised(module: nn.Module) -> nn.Module:
    """Give batch normalisation random statistics and weights, so that a misplaced tensor is noticed."""
    generator = torch.Generator().manual_seed(5)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm3d):
            for tensor, low in ((part.running_mean, -0.5), (part.running_var, 0.5), (part.weight, 0.5), (part.bias, 0)):
                assert tensor is not None
                tensor.data.copy_(low + torch.rand(tensor.shape, generator=generator))
            assert part.num_batches_tracked is not None
            part.num_batches_tracked.fill_(7)
    return module.eval()


# ---- files of them --------------------------------------------------------------------------------------------------


def config(backbone: str = "r3d", depth: int = 10, width: int = 4, **raw: Any) -> TrialConfig:
    student = {"backbone": backbone, "depth": depth, "width": width}
    return TrialConfig.model_validate({"student": student, "clip": {"frames": 8, "size": 16}, **raw})


def pretrained(backbone: str = "r3d", depth: int = 10, width: int = 4, **heads: Any) -> nn.Module:
    torch.manual_seed(3)
    return randomised(VCPN(base_network(backbone, depth, width), 8 * width, **heads))


def saved(folder: Path, content: Any, name: str = "best_model_196.pt") -> Path:
    torch.save(content, folder / name)
    return folder / name


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(StoreError) as caught:
        call()
    return str(caught.value)
