"""Checkpoint files: a trial's whole state with a checksum over its content, and the weights that a trial ended with."""

from __future__ import annotations

import errno
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdtune.errors import DamageError, Problem, StoreError
from kdtune.parse import first_line
from kdtune.store import TrialFiles
from kdtune.store.files import read_json
from kdtune.train.profile import state_digest
from kdtune.train.soundness import read_result

#: What torch saves of a module, an optimizer or a whole trial: tensors, plain values and nested state dicts by name.
StateDict = dict[str, Any]

#: Hints for an unusable checkpoint: of a trial trained here, and of imported weights.
ADVICE = "remove its folder to train it again"
IMPORT_ADVICE = "import it again with `kdtune teacher import`"


def trained_weights(files: TrialFiles) -> dict[str, Tensor]:
    """Return the weights that a complete trial ended with, on the CPU. Every reader of trained weights calls this.

    Raises DamageError if the checkpoint or the result is missing or unreadable, or if the checkpoint does not hold the
    weights that the result names; StoreError if the weights are not finite.
    """
    result = read_result(files)
    if result is None:
        raise DamageError.at(files.folder, "is not a complete trial")
    imported = (read_json(files.config) or {}).get("imported")
    advice = ADVICE if imported is None else IMPORT_ADVICE
    weights, wanted = final_weights(files.checkpoint, advice), result["weights_sha256"]
    found = state_digest(weights)
    if imported is not None and not wanted.startswith(imported):
        what = f"names the weights {_short(wanted)}, config.json {_short(imported)}; {advice}"
        raise DamageError.at(files.result_file, what)
    if found != wanted:
        what = f"the checkpoint holds the weights {_short(found)}, but result.json names {_short(wanted)}; {advice}"
        raise DamageError.at(files.checkpoint, what)
    if bad := not_finite_tensors(weights):
        raise StoreError.at(files.checkpoint, f"its weights are not finite: {first_names(bad)}")
    return weights


def not_finite_tensors(weights: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors with a value that is not finite."""
    return [name for name, value in weights.items() if not bool(value.isfinite().all())]


def first_names(names: list[str], shown: int = 3) -> str:
    """Join the first `shown` names and count the rest: "a, b, c and 4 more"."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def _short(sha256: str) -> str:
    return f"{sha256[:12]}…"


def final_weights(path: Path, advice: str = ADVICE) -> dict[str, Tensor]:
    """Return the weights that the trial of a checkpoint ended with, on the CPU, without comparing them with its result.

    Raises DamageError if the file is not a checkpoint.
    """
    return weights_in(read_checkpoint(path, advice), path, advice)


def weights_in(parts: Any, path: Path, advice: str = ADVICE) -> dict[str, Tensor]:
    """Return the best weights in the parts of the checkpoint `path`, or the last ones if it tracks no best.

    Raises DamageError if the parts are not a trial's.
    """
    best = parts.get("best") if isinstance(parts, dict) else None
    holder = parts if best is None else best
    weights = holder.get("network") if isinstance(holder, dict) else None
    found = weights.items() if isinstance(weights, Mapping) else [(None, None)]
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in found):
        raise DamageError.at(path, f"is not a trial's checkpoint; {advice}")
    return dict(found)


def read_checkpoint(path: Path, advice: str = ADVICE) -> StateDict:
    """Return the parts of a checkpoint, on the CPU. Loads only tensors and plain values, so no code of the file runs.

    Raises DamageError if the file is missing, unreadable or fails its checksum; StoreError if the disk or its
    permissions refuse. `advice` ends the message.
    """
    try:
        opened = path.open("rb")
    except FileNotFoundError as error:
        raise DamageError(
            [Problem(str(path), f"the checkpoint cannot be read ({error.strerror}); {advice}")]
        ) from error
    except OSError as error:
        raise StoreError.at(path, f"the checkpoint cannot be read ({error.strerror})") from error
    try:
        with opened:
            parts = torch.load(opened, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        if out_of_memory(error) and _is_intact(path):  # otherwise a damaged size asks for the memory
            raise
        # A truncated file makes torch seek before its beginning: EINVAL. Any other errno comes from the disk.
        refused = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
        what = f"the checkpoint cannot be read ({first_line(error).split('. ')[0]}); {advice}"
        raise (StoreError if refused else DamageError)([Problem(str(path), what)]) from error
    # torch ignores the checksums in its own files. Imported weights carry none: their key holds their digest.
    trained = isinstance(parts, dict) and {"sha256", "epoch"} & set(parts)
    if trained and parts.pop("sha256", None) != content_digest(parts):
        raise DamageError.at(path, f"the checkpoint is damaged: it does not match its checksum; {advice}")
    return parts


def _is_intact(path: Path) -> bool:
    """Return whether every member of the file, a zip archive, matches its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:
        return False


def out_of_memory(error: BaseException) -> bool:
    """Return whether the error says that host or GPU memory ran out (torch's CPU allocator raises RuntimeError)."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def content_digest(value: Any) -> str:
    """Return the SHA-256 (hex) of nested dictionaries, lists, tensors and plain values: types, shapes, bytes, order."""
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
    """Load the tensors `prefix.*` of `weights` into `module`. Raises StoreError, naming each one that does not fit."""
    part = {name.removeprefix(f"{prefix}."): value for name, value in weights.items() if name.startswith(f"{prefix}.")}
    try:
        module.load_state_dict(part)
    except RuntimeError as error:
        reasons = [line.strip() for line in str(error).splitlines()[1:]]
        raise StoreError([Problem(prefix, reason) for reason in reasons]) from error
