"""All of a trial's state in one file, written whole or not at all."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from kdtune.errors import Problem, StoreError
from kdtune.losses.contrast import MemoryBank
from kdtune.models.heads import PclNetwork
from kdtune.store import write_atomic


@dataclass
class TrialState:
    """Everything that changes while a trial trains. Random draws need no state: they are functions of the position."""

    network: PclNetwork
    bank: MemoryBank | None
    optimizer: SGD
    scheduler: ReduceLROnPlateau | None
    epoch: int = 0
    """Epochs done."""
    seconds: float = 0.0
    """Spent on them, over all interruptions."""

    def save(self, path: Path) -> None:
        parts: dict[str, Any] = {"epoch": self.epoch, "seconds": self.seconds}
        for name in ("network", "bank", "optimizer", "scheduler"):
            part = getattr(self, name)
            parts[name] = None if part is None else part.state_dict()
        buffer = io.BytesIO()
        torch.save(parts, buffer)
        write_atomic(path, buffer.getvalue())

    def load(self, path: Path) -> None:
        """Go on from `path` where it exists. Raises StoreError for a file that is not this trial's checkpoint."""
        if not path.exists():
            return
        parts = read_checkpoint(path)
        for name in ("network", "bank", "optimizer", "scheduler"):
            part = getattr(self, name)
            if part is not None:
                part.load_state_dict(parts[name])
        self.epoch, self.seconds = parts["epoch"], parts["seconds"]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The parts of a checkpoint, on the CPU. Only tensors and plain values are read: loading never runs code."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        what = f"the checkpoint cannot be read ({error}); remove its folder to train it again"
        raise StoreError([Problem(str(path), what.splitlines()[0])]) from error
