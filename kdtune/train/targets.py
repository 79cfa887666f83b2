"""A teacher's logits for every sample of every epoch, computed once and found by every later trial (DESIGN 4.3).

They are computed over the one order in blocks of a fixed size, by whoever needs a block first: a value is then the same
whoever computed it, at any data fraction, in any batch. A stream is named by what it is made from: the teacher, the
data, the profile and everything that the tuples are drawn from; neither the student nor the loss nor the fraction
belongs to it.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdtune.clips.dataset import TrialData
from kdtune.config.key import canonical, digest
from kdtune.config.trial import TrialConfig
from kdtune.models.heads import PclNetwork, build_network
from kdtune.store import Store, write_atomic
from kdtune.train.checkpoint import read_checkpoint
from kdtune.train.inputs import training_tuples
from kdtune.train.profile import profile

#: Samples in a block, and in one pass of the teacher: part of what a target is, so it never changes.
BLOCK = 64


def load_teacher(config: TrialConfig, checkpoint: Path, device: torch.device) -> PclNetwork:
    """The trained network of a teacher's trial, frozen and in evaluation mode."""
    network = build_network(config)
    network.load_state_dict(read_checkpoint(checkpoint)["network"])
    return network.requires_grad_(False).eval().to(device)


class Targets:
    """The targets of one trial: finds what is in the store, computes what is not. Loads the teacher only for that."""

    def __init__(self, config: TrialConfig, teacher_key: str, data: TrialData, store: Store, device: torch.device):
        assert config.teacher is not None
        self.config, self.teacher, self.teacher_key = config, config.teacher, teacher_key
        self.data, self.store, self.device = data, store, device
        form = canonical(config)
        del form["data"]["fraction"]
        trained = store.trial(teacher_key).result()
        assert trained is not None, "a teacher is trained before its targets are asked for"
        self.key = digest(
            {name: form[name] for name in ("data", "clip", "pretext", "augment", "seed")}
            # By its weights rather than its key, and with the profile: machines that differ may share a store.
            | {"teacher": trained["weights_sha256"], "memory_format": self.teacher.memory_format, "block": BLOCK}
            | {"profile": profile(config, device, data.clips)}
        )
        self._network: PclNetwork | None = None

    def epoch(self, epoch: int) -> Tensor:
        """(size, 5) float32 logits on the training device, one row a sample of the trial's fraction."""
        blocks = [self._block(epoch, block) for block in range(-(-self.data.size // BLOCK))]
        return torch.from_numpy(np.concatenate(blocks)[: self.data.size]).to(self.device)

    def _block(self, epoch: int, block: int) -> np.ndarray:
        path = self.store.targets(self.key, epoch, block)
        if not path.exists():
            with self.store.lock(f"targets-{self.key}"):
                if not path.exists():
                    logits = self._compute(epoch, block)
                    buffer = io.BytesIO()
                    np.save(buffer, logits)
                    write_atomic(path, buffer.getvalue())
                    return logits
        return np.load(path)

    @torch.no_grad()
    def _compute(self, epoch: int, block: int) -> np.ndarray:
        if self._network is None:
            self._network = load_teacher(self.teacher, self.store.trial(self.teacher_key).checkpoint, self.device)
        # Over the whole order, not the fraction, so that the block is complete for everybody.
        samples = np.arange(block * BLOCK, min((block + 1) * BLOCK, len(self.data.order)))
        batch = training_tuples(self.config, self.data, epoch, samples, self.device)
        return self._network.pretext_logits(self._network.features(batch.clips)).cpu().numpy()
