"""Build backbones by name. R3D, R(2+1)D and C3D are here: clips (B, 3, T, H, W) in, pooled features (B, 8·width) out.

The residual networks are Tran et al.'s (arXiv 1711.11248) with a configurable width and one block per stage at depth 10
(the papers) or two at depth 18. Parameter names follow torchvision's VideoResNet. R3D equals torchvision's and PCL's.
R(2+1)D follows PCL: each convolution has its own inner width, and shortcuts are factorised, too. C3D is Tran et al.,
arXiv 1412.0767, with batch normalisation and the global average instead of its last pool (PCL).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdtune.config.network import TORCHVISION_FEATURES, NetworkConfig
from kdtune.config.sections import ClipConfig
from kdtune.models.pools import MaxPool3d


def _normalised(conv: nn.Module, channels: int) -> list[nn.Module]:
    """Return a convolution, the normalisation of its `channels` outputs, and a ReLU."""
    return [conv, nn.BatchNorm3d(channels), nn.ReLU(inplace=True)]


class Conv3DSimple(nn.Conv3d):
    """The full convolution of R3D: 3×3×3, or 1×1×1 in a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int = 3) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


class Conv2Plus1D(nn.Sequential):
    """The factorised convolution of R(2+1)D: 1×3×3 in space, then 3×1×1 in time; in a shortcut both are 1×1×1."""

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int = 3) -> None:
        # As many parameters as the full convolution has (arXiv 1711.11248, section 3.5), computed for each convolution
        # as in PCL; torchvision uses the first convolution's number for both of a block.
        area, pad = kernel * kernel, kernel // 2
        middle = (inputs * outputs * kernel * area) // (inputs * area + kernel * outputs)
        space = nn.Conv3d(inputs, middle, (1, kernel, kernel), (1, stride, stride), (0, pad, pad), bias=False)
        time = nn.Conv3d(middle, outputs, (kernel, 1, 1), (stride, 1, 1), (pad, 0, 0), bias=False)
        super().__init__(*_normalised(space, middle), time)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, conv: type[Conv3DSimple] | type[Conv2Plus1D], stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*_normalised(conv(inputs, outputs, stride), outputs))
        self.conv2 = nn.Sequential(conv(outputs, outputs, 1), nn.BatchNorm3d(outputs))
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(conv(inputs, outputs, stride, kernel=1), nn.BatchNorm3d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.conv2(self.conv1(x)) + shortcut)


def _r3d_stem(width: int) -> nn.Sequential:
    return nn.Sequential(*_normalised(nn.Conv3d(3, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False), width))


def _r21d_stem(width: int) -> nn.Sequential:
    middle = (3 * 49 * 3 * width) // (49 * 3 + 3 * width)  # 83 at width 64, as in PCL; torchvision has 45
    space = nn.Conv3d(3, middle, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
    time = nn.Conv3d(middle, width, (3, 1, 1), padding=(1, 0, 0), bias=False)
    return nn.Sequential(*_normalised(space, middle), *_normalised(time, width))


class ResidualNetwork(nn.Sequential):
    """Stem, four stages of `blocks` blocks with 1, 2, 4 and 8 times `width` channels, global average."""

    def __init__(self, stem: nn.Module, conv: type[Conv3DSimple] | type[Conv2Plus1D], blocks: int, width: int) -> None:
        super().__init__()
        self.add_module("stem", stem)
        channels = width
        for stage in range(4):
            outputs = width * 2**stage
            layers = []
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(BasicBlock(channels, outputs, conv, stride))
                channels = outputs
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean((2, 3, 4))


class C3D(nn.Module):
    """Eight 3×3×3 convolutions with four max-pools between them and a global average at the end."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage, multiples in enumerate(((1,), (2,), (4, 4), (8, 8), (8, 8))):
            if stage > 0:
                layers.append(MaxPool3d((1, 2, 2) if stage == 1 else 2))
            for multiple in multiples:
                layers += _normalised(nn.Conv3d(channels, multiple * width, 3, padding=1), multiple * width)
                channels = multiple * width
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean((2, 3, 4))


def build_backbone(config: NetworkConfig, clip: ClipConfig) -> nn.Module:
    """Return the network that `config` names, (B, 3, T, H, W) → (B, config.features).

    Its weights are drawn from torch's generator. `clip` matters to MViT alone, which learns a weight per position.
    """
    # Import torchvision only where it is needed: that takes two seconds.
    if config.backbone in TORCHVISION_FEATURES:
        from kdtune.models.torchvision_networks import build_torchvision

        return build_torchvision(config.backbone, clip)
    blocks = 1 if config.depth == 10 else 2
    network: nn.Module
    if config.backbone == "tdn_light":
        from kdtune.models.tdn_light import LightTdn

        network = LightTdn(blocks, config.width)
    elif config.backbone == "c3d":
        network = C3D(config.width)
    else:
        stem, conv = (_r3d_stem, Conv3DSimple) if config.backbone == "r3d" else (_r21d_stem, Conv2Plus1D)
        network = ResidualNetwork(stem(config.width), conv, blocks, config.width)
    if config.initial_weights == "kaiming":
        draw_kaiming(network)
    return network


def draw_kaiming(network: nn.Module) -> None:
    """Draw the convolutions' weights as torchvision does: normal by fan-out (arXiv 1502.01852), biases 0.

    Grouped convolutions keep their weights: they are filters with their own initialisation (tdn_light).
    """
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Conv3d) and part.groups == 1:
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def weights_to_channels_last(network: nn.Module) -> None:
    """Convert convolution weights to channels last, in place. `Module.to` refuses networks with both 2D and 3D ones."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            part.to(memory_format=torch.channels_last)
        elif isinstance(part, nn.Conv3d):
            part.to(memory_format=torch.channels_last_3d)
