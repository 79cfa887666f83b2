"""The teacher's outputs for every sample of every epoch, computed once and found by every later trial (DESIGN 4.3).

Outputs are logits, the relations of a tuple's clip features, or the features themselves: those that the loss weights.
The first trial that needs a block computes it. Blocks cut the one order at a fixed size, so that a value is the same
whichever trial computes it, at any data fraction and in any batch. A stream's key covers what the values depend on: the
teacher, the data, the profile and everything that the samples are drawn from, but not the student, the rest of the loss
or the fraction.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from filelock import Timeout
from torch import Tensor

from kdtune.clips.frames.store import ClipStore
from kdtune.config.key import digest
from kdtune.config.schedules import largest
from kdtune.config.trial import TrialConfig
from kdtune.config.view import seen
from kdtune.errors import StoreError
from kdtune.losses.relations import relations
from kdtune.models.heads import PclNetwork, build_network
from kdtune.store import StoreFiles
from kdtune.store.contents import EpochRecord
from kdtune.store.files import clear_unfinished, write_atomic
from kdtune.train.checkpoint import load_part
from kdtune.train.inputs import training_samples, viewed_samples
from kdtune.train.profile import make_deterministic, profile, state_digest, torchvision_version
from kdtune.train.samples import Samples, stream_digest
from kdtune.train.soundness import read_result

log = logging.getLogger(__name__)

#: Samples per block and per pass of the teacher. Part of a target's definition, so it must not change.
BLOCK = 64
#: Number of locks per stream: blocks k, k + LOCKS, … share one.
LOCKS = 16

#: Kind → the teacher's outputs for the samples of a block, one row per sample.
TeacherOutputs = dict[str, np.ndarray]


def load_teacher(
    config: TrialConfig, weights: Mapping[str, Tensor], classes: int, head: bool, device: torch.device
) -> PclNetwork:
    """Return a teacher's network with its `weights`, frozen and in evaluation mode. Loads its head if `head`.

    Raises StoreError if the weights do not fit the network.
    """
    network = build_network(config, classes)
    load_part(network.backbone, weights, "backbone")
    if head:
        load_part(network.head, weights, "head")
    return network.requires_grad_(False).eval().to(device)


class Targets:
    """The targets of one trial: read from the store, or computed if missing. Loads the teacher only to compute.

    `view_clips` holds the frames that the teacher sees (`Prepared.view_clips`) if they are not the student's. `load`
    returns the teacher's weights. Raises StoreError if these are not the weights in the targets' key, so that targets
    of other weights never get that key.
    """

    def __init__(
        self,
        samples: Samples,
        teacher_key: str,
        store: StoreFiles,
        load: Callable[[], Mapping[str, Tensor]],
        view_clips: ClipStore | None = None,
    ):
        config = samples.config
        teacher = config.teacher
        assert teacher is not None
        self.samples, self.teacher, self.teacher_key, self.store = samples, teacher, teacher_key, store
        self.config, self.data, self.device = config, samples.data, samples.device
        self.computed = self.found = 0
        loss = config.loss
        weights = {"logits": largest(loss.lambda_), "relations": loss.beta, "features": loss.gamma}
        self.kinds = tuple(kind for kind, weight in weights.items() if weight > 0)
        self._load = load
        trained = read_result(store.trial(teacher_key))
        assert trained is not None, "a teacher is trained before its targets are requested"
        self.weights_sha256: str = trained["weights_sha256"]
        self.key = digest(
            # The teacher's weights rather than its key, plus the profile: different machines may share a store.
            {"samples": stream_digest(config, self.data, "seed"), "teacher": self.weights_sha256, "block": BLOCK}
            | {name: getattr(self.teacher, name) for name in ("memory_format", "precision")}
            # The teacher's network decides whether torchvision's version matters.
            | {"profile": profile(config, self.device, self.data.clips) | {"torchvision": torchvision_version(teacher)}}
        )
        self.view, self.view_clips = config.view, view_clips or self.data.clips
        if self.view is not None:
            self._check_view(self.view)
            clip = {"seen": seen(self.view.clip), "stored": list(self.view.clip.stored_size)}
            self.key = digest({"targets": self.key, "view": clip, "frames": self.view_clips.digest})
        self._network: PclNetwork | None = None

    def epoch(self, epoch: int) -> dict[str, Tensor]:
        """Return an epoch's targets by kind, on the training device, one row per sample of the trial's fraction.

        Shape: logits (size, classes), relations (size, 6), features (size, n, F), all float32. Trials that need the
        same blocks at the same time share the work: each computes those that no other trial is computing.
        """
        size = self.data.size
        self.store.fetch_targets(self.key, epoch)
        blocks = {block: self._stored(epoch, block) for block in range(-(-size // BLOCK))}
        for wait in (False, True):
            for block in [block for block, outputs in blocks.items() if outputs is None]:
                blocks[block] = self._stored_or_computed(epoch, block, wait)
        complete = [block for block in blocks.values() if block is not None]
        return {
            kind: torch.from_numpy(np.concatenate([block[kind] for block in complete])[:size]).to(self.device)
            for kind in self.kinds
        }

    def counts(self) -> EpochRecord:
        """Return the TARGET_COUNTS since the last call, as entries of an epoch's row, and reset them."""
        counts: EpochRecord = {"targets_computed": self.computed, "targets_found": self.found}
        self.computed = self.found = 0
        return counts

    def _stored(self, epoch: int, block: int) -> TeacherOutputs | None:
        """Return a block from the store, or None if one of its kinds is missing or damaged."""
        outputs = {kind: _read(path) for kind, path in self._paths(epoch, block).items()}
        if any(array is None for array in outputs.values()):
            return None
        self.found += self._samples_in(block)
        return {kind: array for kind, array in outputs.items() if array is not None}

    def _stored_or_computed(self, epoch: int, block: int, wait: bool) -> TeacherOutputs | None:
        """Return a block, computed if it is still missing; None if another trial computes it and `wait` is False."""
        try:
            with self.store.lock_here(f"targets-{self.key}-{block % LOCKS}").acquire(blocking=wait):
                outputs = self._stored(epoch, block)
                if outputs is None and all(map(self.store.fetch_file, self._paths(epoch, block).values())):
                    outputs = self._stored(epoch, block)  # another machine has made it meanwhile
                if outputs is None:
                    outputs = self._compute(epoch, block)
                    self.computed += self._samples_in(block)
                    for kind, path in self._paths(epoch, block).items():
                        if path.exists() and _read(path) is None:
                            log.warning(f"{path} was damaged; computed again")
                        clear_unfinished(path.parent, path.name)
                        write_atomic(path, _packed(outputs[kind]))
                        self.store.publish_file(path)
                return outputs
        except Timeout:
            return None

    def _check_view(self, view: TrialConfig) -> None:
        """Raise StoreError unless the teacher's frames come from the student's videos, row by row."""
        assert view.clip.stored_size == self.view_clips.size, "the frames must have the view's size"
        columns = ["video", "frames"]
        if not self.data.clips.index[columns].equals(self.view_clips.index[columns]):
            what = f"holds other videos than {self.data.clips.folder}; remove both folders to decode them again"
            raise StoreError.at(self.view_clips.folder, what)

    def _paths(self, epoch: int, block: int) -> dict[str, Path]:
        return {kind: self.store.targets(self.key, epoch, kind, block) for kind in self.kinds}

    def _samples_in(self, block: int) -> int:
        """Return the number of the block's samples that are in this trial's fraction."""
        return min(BLOCK, self.data.size - block * BLOCK)

    @torch.no_grad()
    def _compute(self, epoch: int, block: int) -> TeacherOutputs:
        network = self._network
        if network is None:
            with torch.enable_grad():  # loading may train a damaged teacher again
                weights = self._load()
            make_deterministic(self.config)  # that training may have used other settings
            if state_digest(weights) != self.weights_sha256:
                what = "the teacher was trained again, to other weights than this trial learned from; run it again"
                raise StoreError.at(self.store.trial(self.teacher_key).folder, what)
            network = load_teacher(self.teacher, weights, self.data.classes, "logits" in self.kinds, self.device)
            self._network = network
        # The whole order rather than the fraction, so that the block is complete for every trial.
        samples = np.arange(block * BLOCK, min((block + 1) * BLOCK, len(self.data.order)))
        if self.view is None:
            batch = training_samples(self.config, self.data, epoch, samples, self.device)
        else:
            view, clips = self.view, self.view_clips
            batch = viewed_samples(self.config, view, self.data, clips, epoch, samples, self.device)
        outputs = {"features": network.features(batch.clips)}
        if "logits" in self.kinds:
            outputs["logits"] = network.logits(outputs["features"])
        if "relations" in self.kinds:
            outputs["relations"] = relations(outputs["features"])
        return {kind: outputs[kind].cpu().numpy() for kind in self.kinds}


def is_block(path: Path) -> bool:
    """Return whether a file holds an intact block of targets."""
    return path.is_file() and _read(path) is not None


def _packed(array: np.ndarray) -> bytes:
    """Return the array as a .npy file followed by its SHA-256, which NumPy ignores."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue() + hashlib.sha256(buffer.getvalue()).digest()


def _read(path: Path) -> np.ndarray | None:
    """Return the array of a file that `_packed` made; None if the file is missing or damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    saved, sha256 = content[:-32], content[-32:]
    return np.load(io.BytesIO(saved)) if hashlib.sha256(saved).digest() == sha256 else None
