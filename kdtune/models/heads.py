"""The PCL network: one backbone for a sample's clips, a linear head on all of them, a projector on the outer two."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdtune.clips.tuples import PRETEXT_CLASSES
from kdtune.config.trial import TrialConfig
from kdtune.models.backbones import build_backbone, weights_to_channels_last
from kdtune.models.conv5 import with_conv5

T = TypeVar("T")


class PclNetwork(nn.Module):
    """Backbone, head Linear(n·F → classes) on the n clips of a sample, projector F → F → ReLU → D (PCL's vcopn.py).

    With `loss.target` pretext, n is 3 and the classes are the five pretext labels. With action, n is 1, the classes are
    the actions and there is no projector.
    """

    def __init__(self, config: TrialConfig, classes: int) -> None:
        super().__init__()
        size = config.student.features
        # Keep the name: torch pickles its own object by searching the modules that a process has loaded.
        self.memory_format = config.memory_format
        self.mixed = config.precision == "bf16"
        self.backbone = build_backbone(config.student, config.clip)
        self.frozen = config.frozen == "backbone"
        self.head = nn.Linear(config.clips * size, classes)
        if config.loss.target == "pretext":
            self.projector = nn.Sequential(
                nn.Linear(size, size), nn.ReLU(inplace=True), nn.Linear(size, config.loss.projection)
            )

        self.train()

    def train(self, mode: bool = True) -> PclNetwork:
        """Set the mode. A frozen backbone stays in evaluation mode and keeps its weights and batch statistics."""
        super().train(mode)
        if self.frozen:
            self.backbone.requires_grad_(False).eval()
        return self

    def features(self, clips: Tensor) -> Tensor:
        """(B, n, 3, T, H, W) → (B, n, F). Each position of the tuple is one pass with its own batch statistics."""
        return torch.stack([self.clip_features(clips[:, c]) for c in range(clips.shape[1])], dim=1)

    def clip_features(self, clip: Tensor) -> Tensor:
        """(B, 3, T, H, W) → (B, F) float32, in any precision setting."""
        return self._through(self.backbone, clip).float()

    def _through(self, network: Callable[[Tensor], T], clip: Tensor) -> T:
        """Return `network(clip)`, computed in this network's memory layout and precision."""
        layout = torch.channels_last_3d if self.memory_format == "channels_last" else torch.contiguous_format
        with torch.autocast(clip.device.type, torch.bfloat16, enabled=self.mixed):
            return network(clip.contiguous(memory_format=layout))

    def evaluation_features(self, clips: Tensor, conv5: bool) -> tuple[Tensor, Tensor]:
        """(B, n, 3, T, H, W) → `features` (B, n, F), and the features that k-NN and retrieval compare (B, n, D).

        They are the same unless `conv5` is set.
        """
        if not conv5:
            features = self.features(clips)
            return features, features
        parts = [self._through(partial(with_conv5, self.backbone), clips[:, c]) for c in range(clips.shape[1])]
        pooled, compared = (torch.stack([part.float() for part in each], dim=1) for each in zip(*parts, strict=True))
        return pooled, compared

    def logits(self, features: Tensor) -> Tensor:
        """(B, n, F) → (B, classes)."""
        return self.head(features.flatten(1))

    def projections(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, F) → two views (B, D) of unit length, of the untransformed clips 0 and 2."""
        first, last = (F.normalize(self.projector(features[:, c]), dim=1) for c in (0, 2))
        return first, last


def build_network(config: TrialConfig, classes: int = PRETEXT_CLASSES) -> PclNetwork:
    """Return a network on the CPU whose weights depend only on `config.seed` and the architecture."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = PclNetwork(config, classes)
    if config.memory_format == "channels_last":
        weights_to_channels_last(network)
    return network
