"""Everything that changes while a trial trains, and its way into a checkpoint and back."""

from __future__ import annotations

import copy
import hashlib
import io
import math
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils._pytree import tree_leaves

from kdtune.losses.contrast import MemoryBank
from kdtune.losses.features import FeatureProjector
from kdtune.models.heads import PclNetwork
from kdtune.store import TrialFiles
from kdtune.store.files import write_atomic
from kdtune.train.checkpoint import content_digest
from kdtune.train.profile import profile_changes

#: Within an epoch a checkpoint is written when the last was so many seconds ago.
CHECKPOINT_EVERY_S = 240.0
#: After an epoch one is written when it takes no more than this share of the time since the last: short epochs of a
#: large network would else spend a good part of their time on it.
CHECKPOINT_SHARE = 0.02
#: Bytes a second that a trial's first checkpoint is thought to take: digest, file, disk (seen: 117 MB in 0.47 s).
CHECKPOINT_RATE = 250e6

#: What of a TrialState is a plain value, and what has a state dict.
PLAIN = ("epoch", "seconds", "samples", "profiles", "best")
#: Plain values that checkpoints of earlier versions lack.
LATER = ("rows", "origins")
PARTS = ("network", "bank", "projector", "optimizer", "scheduler")


@dataclass
class EpochProgress:
    """How far the epoch under way has come."""

    terms: tuple[str, ...] = ()
    """Names of the loss's terms."""
    losses: list[Tensor] = field(default_factory=list)
    """Of each step: the loss and its terms, summed over the batch."""
    hits: Tensor | int = 0
    """Samples whose label the head has found."""
    seconds: float = 0.0
    """Spent on it, over all interruptions."""
    _since: float = 0.0

    def start_clock(self) -> None:
        self._since = time.perf_counter()

    def count_time(self) -> float:
        """Add what has passed since this or the start was last called; returns the seconds so far."""
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now
        return self.seconds

    @property
    def steps(self) -> int:
        return len(self.losses)

    def state_dict(self) -> dict[str, Any]:
        losses = torch.stack(self.losses) if self.losses else None
        return {"terms": list(self.terms), "losses": losses, "hits": self.hits, "seconds": self.seconds}

    @classmethod
    def restored(cls, parts: dict[str, Any], device: torch.device) -> EpochProgress:
        losses, hits = parts["losses"], parts["hits"]
        return cls(
            tuple(parts["terms"]),
            [] if losses is None else list(losses.to(device).unbind()),
            hits.to(device) if isinstance(hits, Tensor) else hits,
            parts["seconds"],
        )


@dataclass
class TrialState:
    """Everything that changes while a trial trains. Random draws need no state: they are functions of the position."""

    network: PclNetwork
    bank: MemoryBank | None
    projector: FeatureProjector | None
    optimizer: SGD
    scheduler: ReduceLROnPlateau | None
    epoch: int = 0
    """Epochs done."""
    seconds: float = 0.0
    """Spent on them, over all interruptions."""
    progress: EpochProgress = field(default_factory=EpochProgress)
    """Of the epoch after them."""
    samples: str = ""
    """Digest of all samples drawn so far, each batch's chained to those before."""
    profiles: list[dict[str, Any]] = field(default_factory=list)
    """{"epoch": the first that began or went on under it, "profile": …}: one, unless it changed before a resume."""
    best: dict[str, Any] | None = None
    """Where `stage.weights` is best: the lowest validation loss so far, its epoch, and the network's weights then."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Of the epochs done, as in epochs.jsonl, which a checkpoint is compared with and can restore."""
    origins: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the weights that the trial learns from: of its teacher, and of its start."""
    _saved_at: float = field(default_factory=time.monotonic)
    _saved_epoch: int = 0
    _save_seconds: float | None = None
    """What the last checkpoint took; None before this process has written one."""

    def note_validation(self, epoch: int, loss: float) -> None:
        """Keep the weights where the validation loss is the lowest so far."""
        if loss < (math.inf if self.best is None else self.best["loss"]):
            weights = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
            self.best = {"loss": loss, "epoch": epoch, "network": weights}

    def kept_network(self) -> PclNetwork:
        """The network that the trial would end with now: its own, or a copy with the best weights."""
        if self.best is None:
            return self.network
        kept = copy.deepcopy(self.network)
        kept.load_state_dict(self.best["network"])
        return kept

    def note_samples(self, digest: str) -> None:
        """Chain the digest of a batch to those before."""
        self.samples = hashlib.sha256(f"{self.samples}{digest}".encode()).hexdigest()

    def note_profile(self, profile: dict[str, Any]) -> None:
        """Bits depend on it: where a resumed trial's has changed, that is said and recorded."""
        if self.profiles:
            changes = profile_changes(self.profiles[-1]["profile"], profile)
            if not changes:
                return
            changed = [f"{name} {was} → {now}" for name, (was, now) in changes.items()]
            what = f"going on under another profile ({', '.join(changed)}): the bits may be others"
            print(f"kdtune: {what}", file=sys.stderr)
        self.profiles.append({"epoch": self.epoch + 1, "profile": profile})

    def state_dicts(self) -> dict[str, Any]:
        """Of each of PARTS, by its name; None of one that the trial does not have."""
        parts = {name: getattr(self, name) for name in PARTS}
        return {name: None if part is None else part.state_dict() for name, part in parts.items()}

    def save(self, files: TrialFiles, stage: str | None = None) -> None:
        """Write the checkpoint, at a `stage` to keep also as its own; the last one becomes the one before."""
        started = time.monotonic()
        parts: dict[str, Any] = {name: getattr(self, name) for name in (*PLAIN, *LATER)}
        parts |= self.state_dicts() | {"trial": files.key}
        parts["progress"] = self.progress.state_dict()
        buffer = io.BytesIO()
        torch.save({**parts, "sha256": content_digest(parts)}, buffer)
        if stage is not None:  # first, so that the trial never is beyond a stage without its checkpoint
            write_atomic(files.stage_checkpoint(stage), buffer.getvalue())
        if files.checkpoint.exists():
            os.replace(files.checkpoint, files.checkpoint_before)
        write_atomic(files.checkpoint, buffer.getvalue())
        files.publish()
        self._saved_at, self._saved_epoch = time.monotonic(), self.epoch
        self._save_seconds = self._saved_at - started

    def save_if_due(self, files: TrialFiles) -> None:
        """Within a long epoch."""
        if time.monotonic() - self._saved_at >= CHECKPOINT_EVERY_S:
            self.save(files)

    def save_if_cheap(self, files: TrialFiles) -> None:
        """After an epoch."""
        seconds = self._bytes() / CHECKPOINT_RATE if self._save_seconds is None else self._save_seconds
        if seconds <= CHECKPOINT_SHARE * (time.monotonic() - self._saved_at):
            self.save(files)

    def _bytes(self) -> int:
        """Of all tensors of a checkpoint, about."""
        return sum(leaf.nbytes for leaf in tree_leaves(self.state_dicts()) if isinstance(leaf, Tensor))

    def save_if_behind(self, files: TrialFiles) -> None:
        """Where the trial is stopped after an epoch: all of it is kept."""
        if self._saved_epoch < self.epoch:
            self.save(files)

    def restore(self, parts: dict[str, Any]) -> None:
        """Take over the parts of a checkpoint. `rows` and `origins` stay as they are where it has none."""
        for name in PARTS:
            part = getattr(self, name)
            if part is not None:
                part.load_state_dict(parts[name])
        for name in (*PLAIN, *LATER):
            setattr(self, name, parts.get(name, getattr(self, name)))
        self._saved_epoch = self.epoch
        self.progress = EpochProgress.restored(parts["progress"], next(self.network.parameters()).device)
