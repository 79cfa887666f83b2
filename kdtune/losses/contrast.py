"""The contrastive term between the two outer clips of a tuple (PCL's NCEAverage with NCESoftmaxLoss).

Legend: B tuples, D projection size, N training videos, K negatives. All projections have unit length.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdtune.clips.draws import uniforms


def in_batch_loss(first: Tensor, last: Tensor, temperature: float) -> Tensor:
    """Softmax cross-entropy of each view against the other view of all videos in the batch, both directions summed.

    Shape: first and last (B, D) → scalar. The positive is the same video's other view.
    """
    similarity = first @ last.T / temperature
    target = torch.arange(len(first), device=first.device)
    return F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)


class MemoryBank(nn.Module):
    """One stored projection per view and training video, kept in buffers so that checkpoints include them."""

    first: Tensor
    last: Tensor

    def __init__(self, videos: int, dimension: int, negatives: int, momentum: float, temperature: float, seed: int):
        super().__init__()
        self.negatives, self.momentum, self.temperature, self.seed = negatives, momentum, temperature, seed
        bound = (3 / dimension) ** 0.5  # PCL's 1/√(D/3), which gives entries of about unit length
        for view in ("first", "last"):
            u = uniforms(videos * dimension, seed=seed, purpose=f"bank/{view}").reshape(videos, dimension)
            self.register_buffer(view, torch.from_numpy(((2 * u - 1) * bound).astype(np.float32)))

    def draw_negatives(self, epoch: int, samples: np.ndarray) -> Tensor:
        """(B,) samples → (B, K) int64 entries, drawn uniformly with replacement, the same in any batch."""
        drawn = [
            uniforms(self.negatives, seed=self.seed, purpose="negatives", epoch=epoch, sample=sample)
            for sample in samples.tolist()
        ]
        return torch.from_numpy((np.stack(drawn) * len(self.first)).astype(np.int64))

    def loss(self, first: Tensor, last: Tensor, samples: Tensor, negatives: Tensor) -> Tensor:
        """Softmax cross-entropy of each view against the *other* view's bank, both directions summed.

        Shape: first and last (B, D), samples (B,) int64, negatives (B, K) int64 → scalar. The positive is the video's
        own entry in the other bank. The bank does not change: call `update` after computing the step's loss.
        """
        entries = torch.cat((samples.unsqueeze(1), negatives), 1)
        target = torch.zeros(len(first), dtype=torch.long, device=first.device)
        total = first.new_zeros(())
        for view, bank in ((first, self.last), (last, self.first)):
            stored = bank.index_select(0, entries.flatten()).view(*entries.shape, -1)
            similarity = torch.bmm(stored, view.unsqueeze(2)).squeeze(2) / self.temperature
            total = total + F.cross_entropy(similarity, target)
        return total

    @torch.no_grad()
    def update(self, first: Tensor, last: Tensor, samples: Tensor) -> None:
        """Set entry ← normalise(momentum · entry + (1 − momentum) · view) for the batch's videos.

        Shape: first and last (B, D), samples (B,) int64.
        """
        for view, bank in ((first, self.first), (last, self.last)):
            mixed = self.momentum * bank.index_select(0, samples) + (1 - self.momentum) * view
            bank.index_copy_(0, samples, F.normalize(mixed, dim=1))
