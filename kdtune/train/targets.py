"""What a teacher says of every sample of every epoch, computed once and found by every later trial (DESIGN 4.3).

Logits, how the features of a tuple's clips relate, or the features themselves: whatever the loss has a weight for. They
are computed over the one order in blocks of a fixed size, by whoever needs a block first: a value is then the same
whoever computed it, at any data fraction, in any batch. A stream is named by what it is made from: the teacher, the
data, the profile and everything that the samples are drawn from; neither the student nor the rest of the loss nor the
fraction belongs to it.
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
from kdtune.losses.relations import relations
from kdtune.models.heads import PclNetwork, build_network
from kdtune.store import Store, write_atomic
from kdtune.train.checkpoint import final_weights, load_part
from kdtune.train.inputs import training_samples
from kdtune.train.profile import profile

#: Samples in a block, and in one pass of the teacher: part of what a target is, so it never changes.
BLOCK = 64


def load_teacher(config: TrialConfig, checkpoint: Path, classes: int, head: bool, device: torch.device) -> PclNetwork:
    """The trained network of a teacher's trial, frozen and in evaluation mode; its head only where it is asked for."""
    network, weights = build_network(config, classes), final_weights(checkpoint)
    load_part(network.backbone, weights, "backbone")
    if head:
        load_part(network.head, weights, "head")
    return network.requires_grad_(False).eval().to(device)


class Targets:
    """The targets of one trial: finds what is in the store, computes what is not. Loads the teacher only for that."""

    def __init__(self, config: TrialConfig, teacher_key: str, data: TrialData, store: Store, device: torch.device):
        assert config.teacher is not None
        self.config, self.teacher, self.teacher_key = config, config.teacher, teacher_key
        self.data, self.store, self.device = data, store, device
        loss = config.loss
        weights = {"logits": loss.lambda_, "relations": loss.beta, "features": loss.gamma}
        self.kinds = tuple(kind for kind, weight in weights.items() if weight > 0)
        form = canonical(config)
        del form["data"]["fraction"]
        trained = store.trial(teacher_key).result()
        assert trained is not None, "a teacher is trained before its targets are asked for"
        self.key = digest(
            {name: form.get(name) for name in ("data", "clip", "pretext", "augment", "seed")}
            # By its weights rather than its key, and with the profile: machines that differ may share a store.
            | {"teacher": trained["weights_sha256"], "target": loss.target, "block": BLOCK}
            | {name: getattr(self.teacher, name) for name in ("memory_format", "precision")}
            | {"profile": profile(config, device, data.clips)}
        )
        self._network: PclNetwork | None = None

    def epoch(self, epoch: int) -> dict[str, Tensor]:
        """By kind, on the training device, one row a sample of the trial's fraction: logits (size, classes), relations
        (size, 6), features (size, n, F), all float32."""
        blocks = [self._block(epoch, block) for block in range(-(-self.data.size // BLOCK))]
        return {
            kind: torch.from_numpy(np.concatenate([block[kind] for block in blocks])[: self.data.size]).to(self.device)
            for kind in self.kinds
        }

    def _block(self, epoch: int, block: int) -> dict[str, np.ndarray]:
        paths = {kind: self.store.targets(self.key, epoch, kind, block) for kind in self.kinds}
        if not all(path.exists() for path in paths.values()):
            with self.store.lock(f"targets-{self.key}"):
                missing = [kind for kind, path in paths.items() if not path.exists()]
                if missing:
                    said = self._compute(epoch, block)
                    for kind in missing:
                        buffer = io.BytesIO()
                        np.save(buffer, said[kind])
                        write_atomic(paths[kind], buffer.getvalue())
        return {kind: np.load(path) for kind, path in paths.items()}

    @torch.no_grad()
    def _compute(self, epoch: int, block: int) -> dict[str, np.ndarray]:
        network = self._network
        if network is None:
            checkpoint = self.store.trial(self.teacher_key).checkpoint
            network = load_teacher(self.teacher, checkpoint, self.data.classes, "logits" in self.kinds, self.device)
            self._network = network
        # Over the whole order, not the fraction, so that the block is complete for everybody.
        samples = np.arange(block * BLOCK, min((block + 1) * BLOCK, len(self.data.order)))
        batch = training_samples(self.config, self.data, epoch, samples, self.device)
        said = {"features": network.features(batch.clips)}
        if "logits" in self.kinds:
            said["logits"] = network.logits(said["features"])
        if "relations" in self.kinds:
            said["relations"] = relations(said["features"])
        return {kind: said[kind].cpu().numpy() for kind in self.kinds}
