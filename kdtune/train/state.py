"""The mutable state of a training trial, and how it is saved to a checkpoint and restored."""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import math
import os
import time
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils._pytree import tree_leaves

from kdtune.losses.contrast import MemoryBank
from kdtune.losses.features import FeatureProjector
from kdtune.models.heads import PclNetwork
from kdtune.store import TrialFiles
from kdtune.store.contents import EpochRecord, MachineProfile, ProfileFrom
from kdtune.store.files import write_atomic
from kdtune.train.checkpoint import StateDict, content_digest
from kdtune.train.profile import profile_changes

log = logging.getLogger(__name__)

#: Seconds between checkpoints within an epoch.
CHECKPOINT_EVERY_S = 240.0
#: Maximum share of the time since the last checkpoint that one after an epoch may take; otherwise short epochs of a
#: large network would spend much of their time on checkpoints.
CHECKPOINT_SHARE = 0.02
#: Bytes per second assumed for a trial's first checkpoint: digest, file, disk (measured: 117 MB in 0.47 s).
CHECKPOINT_RATE = 250e6

#: Attributes of a TrialState that are plain values (PLAIN) or have a state dict (PARTS).
PLAIN = ("epoch", "seconds", "samples", "profiles", "best", "rows", "origins")
PARTS = ("network", "bank", "projector", "optimizer", "scheduler")


class BestWeights(TypedDict):
    """The network at the lowest validation loss so far."""

    loss: float
    epoch: int
    network: dict[str, Tensor]


@dataclass
class EpochProgress:
    """Progress within the current epoch."""

    terms: tuple[str, ...] = ()
    """Names of the loss's terms."""
    losses: list[Tensor] = field(default_factory=list)
    """For each step, the loss and its terms, summed over the batch: (1 + terms,)."""
    hits: Tensor | int = 0
    """Number of samples that the head classified correctly."""
    seconds: float = 0.0
    """Time spent on the epoch, over all interruptions."""
    _since: float = 0.0

    def start_clock(self) -> None:
        self._since = time.perf_counter()

    def count_time(self) -> float:
        """Add the time since the last call of this or `start_clock`; return the seconds so far."""
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now
        return self.seconds

    @property
    def steps(self) -> int:
        return len(self.losses)

    def state_dict(self) -> StateDict:
        losses = torch.stack(self.losses) if self.losses else None
        return {"terms": list(self.terms), "losses": losses, "hits": self.hits, "seconds": self.seconds}

    @classmethod
    def restored(cls, parts: StateDict, device: torch.device) -> EpochProgress:
        losses, hits = parts["losses"], parts["hits"]
        return cls(
            tuple(parts["terms"]),
            [] if losses is None else list(losses.to(device).unbind()),
            hits.to(device) if isinstance(hits, Tensor) else hits,
            parts["seconds"],
        )


@dataclass
class TrialState:
    """Everything that changes while a trial trains. Random draws need no state: they depend only on the position."""

    network: PclNetwork
    bank: MemoryBank | None
    projector: FeatureProjector | None
    optimizer: SGD
    scheduler: ReduceLROnPlateau | None
    epoch: int = 0
    """Number of finished epochs."""
    seconds: float = 0.0
    """Time spent on the finished epochs, over all interruptions."""
    progress: EpochProgress = field(default_factory=EpochProgress)
    """Progress in the epoch after them."""
    samples: str = ""
    """Digest of all samples drawn so far: each batch's digest is chained to the ones before."""
    profiles: list[ProfileFrom] = field(default_factory=list)
    """One, plus one for each resume under a changed profile."""
    best: BestWeights | None = None
    """Kept with `stage.weights: best`."""
    rows: list[EpochRecord] = field(default_factory=list)
    """Rows of the finished epochs, as in epochs.jsonl. A checkpoint is compared with that file and can restore it."""
    origins: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the weights that the trial learns from: its teacher's and its start's."""
    _saved_at: float = field(default_factory=time.monotonic)
    _saved_epoch: int = 0
    _save_seconds: float | None = None
    """Duration of the last save; None before this process has saved."""

    def note_validation(self, epoch: int, loss: float) -> None:
        """Keep the weights if the validation loss is the lowest so far."""
        if loss < (math.inf if self.best is None else self.best["loss"]):
            weights = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
            self.best = {"loss": loss, "epoch": epoch, "network": weights}

    def final_network(self) -> PclNetwork:
        """Return the network that the trial would end with now: its own, or a copy with the best weights."""
        if self.best is None:
            return self.network
        kept = copy.deepcopy(self.network)
        kept.load_state_dict(self.best["network"])
        return kept

    def note_samples(self, digest: str) -> None:
        """Chain a batch's digest to the ones before."""
        self.samples = hashlib.sha256(f"{self.samples}{digest}".encode()).hexdigest()

    def note_profile(self, profile: MachineProfile) -> None:
        """Record the profile. If it changed since an earlier run, log a note, because bits depend on it."""
        if self.profiles:
            changes = profile_changes(self.profiles[-1]["profile"], profile)
            if not changes:
                return
            changed = [f"{name} {was} → {now}" for name, (was, now) in changes.items()]
            what = f"resuming under another profile ({', '.join(changed)}): the bits may differ"
            log.warning(what)
        self.profiles.append({"epoch": self.epoch + 1, "profile": profile})

    def state_dicts(self) -> dict[str, StateDict | None]:
        """Return the state dict of each of PARTS by name, None for one that the trial does not use."""
        parts = {name: getattr(self, name) for name in PARTS}
        return {name: None if part is None else part.state_dict() for name, part in parts.items()}

    def save(self, files: TrialFiles, stage: str | None = None) -> None:
        """Write the checkpoint and rename the last one to `checkpoint_before`. With `stage`, also keep a copy."""
        started = time.monotonic()
        parts: StateDict = {name: getattr(self, name) for name in PLAIN}
        parts |= self.state_dicts() | {"trial": files.key}
        parts["progress"] = self.progress.state_dict()
        buffer = io.BytesIO()
        torch.save({**parts, "sha256": content_digest(parts)}, buffer)
        if stage is not None:  # first, so that a trial past a stage always has the stage's checkpoint
            write_atomic(files.stage_checkpoint(stage), buffer.getvalue())
        if files.checkpoint.exists():
            os.replace(files.checkpoint, files.checkpoint_before)
        write_atomic(files.checkpoint, buffer.getvalue())
        files.publish()
        self._saved_at, self._saved_epoch = time.monotonic(), self.epoch
        self._save_seconds = self._saved_at - started

    def save_if_due(self, files: TrialFiles) -> None:
        """Save within an epoch if the last checkpoint is CHECKPOINT_EVERY_S old."""
        if time.monotonic() - self._saved_at >= CHECKPOINT_EVERY_S:
            self.save(files)

    def save_if_cheap(self, files: TrialFiles) -> None:
        """Save after an epoch if that takes at most CHECKPOINT_SHARE of the time since the last checkpoint."""
        seconds = self._bytes() / CHECKPOINT_RATE if self._save_seconds is None else self._save_seconds
        if seconds <= CHECKPOINT_SHARE * (time.monotonic() - self._saved_at):
            self.save(files)

    def _bytes(self) -> int:
        """Return the approximate bytes of a checkpoint: those of its tensors."""
        return sum(leaf.nbytes for leaf in tree_leaves(self.state_dicts()) if isinstance(leaf, Tensor))

    def save_if_behind(self, files: TrialFiles) -> None:
        """Save a trial that stops after an epoch, unless the last checkpoint already holds that epoch."""
        if self._saved_epoch < self.epoch:
            self.save(files)

    def restore(self, parts: StateDict) -> None:
        """Load the parts of a checkpoint. Raises KeyError, ValueError or RuntimeError if they do not fit."""
        for name in PARTS:
            part = getattr(self, name)
            if part is not None:
                part.load_state_dict(parts[name])
        for name in PLAIN:
            setattr(self, name, parts[name])
        self._saved_epoch = self.epoch
        self.progress = EpochProgress.restored(parts["progress"], next(self.network.parameters()).device)
