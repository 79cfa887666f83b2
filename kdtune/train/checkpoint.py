"""Checkpoint files: all of a trial's state in one, with a checksum over its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdtune.errors import Problem, StoreError

#: For whoever has a checkpoint that is none.
ADVICE = "remove its folder to train it again"


def final_weights(path: Path) -> dict[str, Tensor]:
    """The weights that the trial of a checkpoint ended with, on the CPU."""
    parts = read_checkpoint(path)
    best = parts.get("best")
    return parts["network"] if best is None else best["network"]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The parts of a checkpoint, on the CPU. Only tensors and plain values are read: loading never runs code.

    Raises StoreError for one that cannot be read, or that is not what was written.
    """
    try:
        parts = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        what = f"the checkpoint cannot be read ({reason}); {ADVICE}"
        raise StoreError([Problem(str(path), what)]) from error
    # torch leaves the checksums in its files unread. Imported weights have their digest in their name.
    trained = isinstance(parts, dict) and {"sha256", "epoch"} & set(parts)
    if trained and parts.pop("sha256", None) != content_digest(parts):
        raise StoreError([Problem(str(path), f"the checkpoint is damaged: its checksum is another; {ADVICE}")])
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
            sha.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
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
