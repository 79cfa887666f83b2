"""What a teacher says of every sample of every epoch, computed once and found by every later trial (DESIGN 4.3).

Logits, how the features of a tuple's clips relate, or the features themselves: whatever the loss has a weight for. They
are computed over the one order in blocks of a fixed size, by whoever needs a block first: a value is then the same
whoever computed it, at any data fraction, in any batch. A stream is named by what it is made from: the teacher, the
data, the profile and everything that the samples are drawn from; neither the student nor the rest of the loss nor the
fraction belongs to it.
"""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from filelock import Timeout
from torch import Tensor

from kdtune.clips.store import ClipStore
from kdtune.config.key import digest
from kdtune.config.schedules import largest
from kdtune.config.trial import TrialConfig
from kdtune.config.view import seen
from kdtune.errors import Problem, StoreError
from kdtune.losses.relations import relations
from kdtune.models.heads import PclNetwork, build_network
from kdtune.store import TARGET_COUNTS, Store
from kdtune.store.files import clear_unfinished, write_atomic
from kdtune.train.checkpoint import load_part, trained_weights
from kdtune.train.inputs import training_samples, viewed_samples
from kdtune.train.profile import make_deterministic, profile, state_digest, torchvision_version
from kdtune.train.samples import Samples, stream_digest
from kdtune.train.soundness import read_result

#: Samples in a block, and in one pass of the teacher: part of what a target is, so it never changes.
BLOCK = 64
#: Of a stream: blocks k, k + LOCKS, … share one.
LOCKS = 16

#: Kind → what the teacher says of a block's samples, one row each.
Said = dict[str, np.ndarray]


def load_teacher(
    config: TrialConfig, weights: Mapping[str, Tensor], classes: int, head: bool, device: torch.device
) -> PclNetwork:
    """The network of a teacher's trial with its `weights`, frozen and in evaluation mode; its head only where it is
    asked for."""
    network = build_network(config, classes)
    load_part(network.backbone, weights, "backbone")
    if head:
        load_part(network.head, weights, "head")
    return network.requires_grad_(False).eval().to(device)


class Targets:
    """The targets of one trial: finds what is in the store, computes what is not. Loads the teacher only for that.

    `view_clips` holds the frames that the teacher sees (`Prepared.view_clips`), where they are not the student's.
    `load` returns the teacher's weights; without it they are read from the store. Raises StoreError where they are not
    those that the targets are named by: nothing is computed with others under the same name.
    """

    def __init__(
        self,
        samples: Samples,
        teacher_key: str,
        store: Store,
        load: Callable[[], Mapping[str, Tensor]] | None = None,
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
        self._load = load or self._stored_weights
        trained = read_result(store.trial(teacher_key))
        assert trained is not None, "a teacher is trained before its targets are asked for"
        self.weights_sha256: str = trained["weights_sha256"]
        self.key = digest(
            # By its weights rather than its key, and with the profile: machines that differ may share a store.
            {"samples": stream_digest(config, self.data, "seed"), "teacher": self.weights_sha256, "block": BLOCK}
            | {name: getattr(self.teacher, name) for name in ("memory_format", "precision")}
            # Whose network is torchvision's is the teacher's to say.
            | {"profile": profile(config, self.device, self.data.clips) | {"torchvision": torchvision_version(teacher)}}
        )
        self.view, self.view_clips = config.view, view_clips or self.data.clips
        if self.view is not None:
            self._check_view(self.view)
            clip = {"seen": seen(self.view.clip), "stored": list(self.view.clip.stored_size)}
            self.key = digest({"targets": self.key, "view": clip, "frames": self.view_clips.digest})
        self._network: PclNetwork | None = None

    def epoch(self, epoch: int) -> dict[str, Tensor]:
        """By kind, on the training device, one row a sample of the trial's fraction: logits (size, classes), relations
        (size, 6), features (size, n, F), all float32.

        Trials that need the same blocks at the same time share the work: each computes those that nobody is at.
        """
        size = self.data.size
        self.store.fetch_targets(self.key, epoch)
        blocks = {block: self._found(epoch, block) for block in range(-(-size // BLOCK))}
        for wait in (False, True):
            for block in [block for block, said in blocks.items() if said is None]:
                blocks[block] = self._made(epoch, block, wait)
        said = [block for block in blocks.values() if block is not None]
        return {
            kind: torch.from_numpy(np.concatenate([block[kind] for block in said])[:size]).to(self.device)
            for kind in self.kinds
        }

    def counts(self) -> dict[str, int]:
        """The TARGET_COUNTS since this was last called."""
        counts = dict(zip(TARGET_COUNTS, (self.computed, self.found), strict=True))
        self.computed = self.found = 0
        return counts

    def _found(self, epoch: int, block: int) -> Said | None:
        """What the store holds of a block, or None where a kind of it is missing or damaged."""
        said = {kind: _read(path) for kind, path in self._paths(epoch, block).items()}
        if any(array is None for array in said.values()):
            return None
        self.found += self._asked(block)
        return {kind: array for kind, array in said.items() if array is not None}

    def _made(self, epoch: int, block: int, wait: bool) -> Said | None:
        """A block, computed where still nobody has; None where another trial is at it and we shall not `wait`."""
        try:
            with self.store.lock_here(f"targets-{self.key}-{block % LOCKS}").acquire(blocking=wait):
                said = self._found(epoch, block)
                if said is None and all(map(self.store.fetch_file, self._paths(epoch, block).values())):
                    said = self._found(epoch, block)  # another machine has made it meanwhile
                if said is None:
                    said = self._compute(epoch, block)
                    self.computed += self._asked(block)
                    for kind, path in self._paths(epoch, block).items():
                        if path.exists() and _read(path) is None:
                            print(f"kdtune: {path} was damaged; computed again", file=sys.stderr)
                        clear_unfinished(path.parent, path.name)
                        write_atomic(path, _packed(said[kind]))
                        self.store.publish_file(path)
                return said
        except Timeout:
            return None

    def _check_view(self, view: TrialConfig) -> None:
        """Raise StoreError where the frames that the teacher sees are not of the student's videos, row by row."""
        assert view.clip.stored_size == self.view_clips.size, "the frames have the view's size"
        columns = ["video", "frames"]
        if not self.data.clips.index[columns].equals(self.view_clips.index[columns]):
            what = f"holds other videos than {self.data.clips.folder}; remove both folders, and decode them again"
            raise StoreError([Problem(str(self.view_clips.folder), what)])

    def _stored_weights(self) -> Mapping[str, Tensor]:
        files = self.store.trial(self.teacher_key)
        return trained_weights(files.fetch(files.checkpoint))

    def _paths(self, epoch: int, block: int) -> dict[str, Path]:
        return {kind: self.store.targets(self.key, epoch, kind, block) for kind in self.kinds}

    def _asked(self, block: int) -> int:
        """How many of the block's samples are of this trial's fraction."""
        return min(BLOCK, self.data.size - block * BLOCK)

    @torch.no_grad()
    def _compute(self, epoch: int, block: int) -> Said:
        network = self._network
        if network is None:
            with torch.enable_grad():  # they may be made by training
                weights = self._load()
            make_deterministic(self.config)  # the teacher may have been trained just now, with other settings
            if state_digest(weights) != self.weights_sha256:
                what = "the teacher was trained again, to other weights than this trial learned from; run it again"
                raise StoreError([Problem(str(self.store.trial(self.teacher_key).folder), what)])
            network = load_teacher(self.teacher, weights, self.data.classes, "logits" in self.kinds, self.device)
            self._network = network
        # Over the whole order, not the fraction, so that the block is complete for everybody.
        samples = np.arange(block * BLOCK, min((block + 1) * BLOCK, len(self.data.order)))
        if self.view is None:
            batch = training_samples(self.config, self.data, epoch, samples, self.device)
        else:
            view, clips = self.view, self.view_clips
            batch = viewed_samples(self.config, view, self.data, clips, epoch, samples, self.device)
        said = {"features": network.features(batch.clips)}
        if "logits" in self.kinds:
            said["logits"] = network.logits(said["features"])
        if "relations" in self.kinds:
            said["relations"] = relations(said["features"])
        return {kind: said[kind].cpu().numpy() for kind in self.kinds}


def is_block(path: Path) -> bool:
    """Return whether a file of targets is what was written."""
    return path.is_file() and _read(path) is not None


def _packed(array: np.ndarray) -> bytes:
    """As a .npy file, with the SHA-256 of all that at its end, where NumPy does not look."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue() + hashlib.sha256(buffer.getvalue()).digest()


def _read(path: Path) -> np.ndarray | None:
    """The array of a file that `_packed` made; None where there is none or it is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    saved, sha256 = content[:-32], content[-32:]
    return np.load(io.BytesIO(saved)) if hashlib.sha256(saved).digest() == sha256 else None
