"""All of a trial's state in one file, written whole or not at all, with a checksum, and the one before beside it."""

from __future__ import annotations

import copy
import hashlib
import io
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from kdtune.errors import Problem, StoreError
from kdtune.losses.contrast import MemoryBank
from kdtune.losses.features import FeatureProjector
from kdtune.models.heads import PclNetwork
from kdtune.store import TrialFiles, write_atomic


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
    best: dict[str, Any] | None = None
    """Where `stage.weights` is best: the lowest validation loss so far, its epoch, and the network's weights then."""

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

    def save(self, files: TrialFiles) -> None:
        """Write the checkpoint; the last one becomes the one before."""
        parts: dict[str, Any] = {"epoch": self.epoch, "seconds": self.seconds, "best": self.best}
        for name in PARTS:
            part = getattr(self, name)
            parts[name] = None if part is None else part.state_dict()
        buffer = io.BytesIO()
        torch.save({**parts, "sha256": content_digest(parts)}, buffer)
        if files.checkpoint.exists():
            os.replace(files.checkpoint, files.checkpoint_before)
        write_atomic(files.checkpoint, buffer.getvalue())

    def load(self, files: TrialFiles) -> None:
        """Go on from the last checkpoint or, where it is damaged or missing, from the one before, if there is one.

        Raises StoreError where there are only damaged ones.
        """
        damaged: list[StoreError] = []
        for path in (files.checkpoint, files.checkpoint_before):
            if not path.exists():
                continue
            try:
                self._restore(read_checkpoint(path))
            except StoreError as error:
                damaged.append(error)
                continue
            if damaged:
                print(f"kdtune: {str(damaged[0]).strip()}: going on from the one before", file=sys.stderr)
            return
        if damaged:
            raise damaged[0]

    def _restore(self, parts: dict[str, Any]) -> None:
        for name in PARTS:
            part = getattr(self, name)
            if part is not None:
                part.load_state_dict(parts[name])
        self.epoch, self.seconds, self.best = parts["epoch"], parts["seconds"], parts["best"]


#: What of a TrialState has a state dict.
PARTS = ("network", "bank", "projector", "optimizer", "scheduler")


def final_weights(path: Path) -> dict[str, Tensor]:
    """The weights that the trial of a checkpoint ended with, on the CPU."""
    parts = read_checkpoint(path)
    best = parts.get("best")
    return parts["network"] if best is None else best["network"]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The parts of a checkpoint, on the CPU. Only tensors and plain values are read: loading never runs code.

    Raises StoreError for one that cannot be read, or that is not what was written.
    """
    advice = "remove its folder to train it again"
    try:
        parts = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        what = f"the checkpoint cannot be read ({reason}); {advice}"
        raise StoreError([Problem(str(path), what)]) from error
    # torch leaves the checksums in its files unread. Imported weights have their digest in their name.
    if isinstance(parts, dict) and "sha256" in parts and parts.pop("sha256") != content_digest(parts):
        raise StoreError([Problem(str(path), f"the checkpoint is damaged: its checksum is another; {advice}")])
    return parts


def content_digest(value: Any) -> str:
    """SHA-256 over a nest of dictionaries, lists, tensors and plain values: types, shapes, bytes, in their order."""
    sha = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, Mapping):
            sha.update(f"{{{len(part)}:".encode())
            for name, below in part.items():
                add(name)
                add(below)
        elif isinstance(part, list | tuple):
            sha.update(f"[{len(part)}:".encode())
            for below in part:
                add(below)
        elif isinstance(part, Tensor):
            sha.update(f"{part.dtype}:{tuple(part.shape)}:".encode())
            sha.update(part.detach().cpu().contiguous().numpy().tobytes())
        else:
            sha.update(f"{type(part).__name__}:{part!r};".encode())

    add(value)
    return sha.hexdigest()


def load_part(module: nn.Module, weights: Mapping[str, Tensor], prefix: str) -> None:
    """Load the tensors `prefix.*` of `weights` into `module`, all of them or, with a StoreError, none."""
    part = {name.removeprefix(f"{prefix}."): value for name, value in weights.items() if name.startswith(f"{prefix}.")}
    try:
        module.load_state_dict(part)
    except RuntimeError as error:
        reasons = [line.strip() for line in str(error).splitlines()[1:]]
        raise StoreError([Problem(prefix, reason) for reason in reasons]) from error
