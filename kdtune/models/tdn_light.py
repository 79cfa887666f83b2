"""A student without 3D convolutions, for devices that cannot run them: a 2D residual network with temporal differences.

Each frame passes separately through ResNet's basic blocks (He et al., arXiv 1512.03385). Before each of the four
stages, the differences of neighbouring frames excite the features that move. This is the long-term module of the
Temporal Difference Network (Wang et al., TDN, arXiv 2012.10071, section 3.3) at one scale; TDN's others use
interpolation.

The network is inspired by TDN but is not TDN: it lacks the short-term module, the channel shift and the sampling of
segments, and excites before a stage instead of inside its blocks. Do not compare its figures with TDN's.

Input: clips (B, 3, T, H, W). Output: features (B, 8·width), averaged over space and time. For clips of 10 frames at
112² and width 64: 5.0 M parameters and 8.4 GMAC at depth 10, 11.2 M and 17.7 at depth 18; at width 32 a quarter.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock


class MotionExcitation(nn.Module):
    """x + x · (σ(differences of x from the next and the previous frame) − ½). A still clip passes unchanged.

    It differs from TDN's published code in three points. TDN smooths only the neighbour, so that even equal frames
    differ; here the difference is smoothed. In TDN both directions of time share their weights and are averaged, so
    that a clip and its reverse have the same features; here each direction has its own weights. And channels are
    squeezed to a quarter instead of a sixteenth, because a narrow student has few.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = channels // 4
        self.squeeze = nn.Sequential(nn.Conv2d(channels, squeezed, 1, bias=False), nn.BatchNorm2d(squeezed))
        # Without biases, so that a zero difference gives no excitation.
        self.smooth = nn.Conv2d(2 * squeezed, 2 * squeezed, 3, padding=1, groups=2 * squeezed, bias=False)
        nn.init.constant_(self.smooth.weight, 1 / 9)
        self.expand = nn.Conv2d(2 * squeezed, channels, 1, bias=False)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B·T, C, H, W) with T = `frames` → the same shape."""
        return x + x * (torch.sigmoid(self.expand(self.smooth(self.differences(x, frames)))) - 0.5)

    def differences(self, x: Tensor, frames: int) -> Tensor:
        """(B·T, C, H, W) → (B·T, 2·C/4, H, W): next − this, then previous − this; 0 beyond the clip's ends."""
        steps = self.squeeze(x).unflatten(0, (-1, frames)).diff(dim=1)
        # F.pad counts from the last dimension: the fourth pair is time.
        following = F.pad(steps, (0, 0, 0, 0, 0, 0, 0, 1))
        preceding = F.pad(-steps, (0, 0, 0, 0, 0, 0, 1, 0))
        return torch.cat((following, preceding), dim=2).flatten(0, 1)


class LightTdn(nn.Module):
    """Stem, four stages of `blocks` blocks with 1, 2, 4 and 8 times `width` channels, global average."""

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        # No pool follows, as in our 3D networks: clips are small.
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        channels = width
        for stage in range(4):
            self.add_module(f"motion{stage + 1}", MotionExcitation(channels))
            outputs = width * 2**stage
            layers = []
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(BasicBlock(channels, outputs, stride, _shortcut(channels, outputs, stride)))
                channels = outputs
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        batch, _, frames = x.shape[:3]
        x = self.stem(x.transpose(1, 2).flatten(0, 1))
        for stage in range(1, 5):
            x = self.get_submodule(f"motion{stage}")(x, frames)
            x = self.get_submodule(f"layer{stage}")(x)
        return x.unflatten(0, (batch, frames)).mean((1, 3, 4))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
