"""The PCL network: one backbone on three clips, a pretext head on all of them, a projector on the outer two."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdtune.clips.tuples import PRETEXT_CLASSES
from kdtune.config.trial import TrialConfig
from kdtune.models.backbones import build_backbone, feature_size


class PclNetwork(nn.Module):
    """Backbone, pretext head Linear(3·F → 5), projector F → F → ReLU → D (PCL's models/vcopn.py)."""

    def __init__(self, config: TrialConfig) -> None:
        super().__init__()
        size = feature_size(config.student)
        self.memory_format = (
            torch.channels_last_3d if config.memory_format == "channels_last" else torch.contiguous_format
        )
        self.backbone = build_backbone(config.student)
        self.pretext_head = nn.Linear(3 * size, PRETEXT_CLASSES)
        self.projector = nn.Sequential(
            nn.Linear(size, size), nn.ReLU(inplace=True), nn.Linear(size, config.loss.projection)
        )

    def features(self, clips: Tensor) -> Tensor:
        """(B, n, 3, T, H, W) → (B, n, F): n passes, so that batch statistics are those of one position in the tuple."""
        return torch.stack([self.clip_features(clips[:, c]) for c in range(clips.shape[1])], dim=1)

    def clip_features(self, clip: Tensor) -> Tensor:
        """(B, 3, T, H, W) → (B, F)."""
        return self.backbone(clip.contiguous(memory_format=self.memory_format))

    def pretext_logits(self, features: Tensor) -> Tensor:
        """(B, 3, F) → (B, 5), one logit for each pretext label."""
        return self.pretext_head(features.flatten(1))

    def projections(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, F) → two views (B, D) of unit length: clips 0 and 2, the untransformed ones."""
        first, last = (F.normalize(self.projector(features[:, c]), dim=1) for c in (0, 2))
        return first, last


def build_network(config: TrialConfig) -> PclNetwork:
    """A network on the CPU with weights that depend on `config.seed` and the architecture alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = PclNetwork(config)
    return network.to(memory_format=network.memory_format)
