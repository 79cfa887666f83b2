"""Read a published checkpoint: return its tensors under our names, or report all of its problems in one message.

Unknown and missing tensors, wrong shapes and types, and values that are not finite are refused. Loads tensors only, so
no code of the file runs.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from kdtune.clips.tuples import PRETEXT_CLASSES
from kdtune.config.trial import TrialConfig
from kdtune.errors import Problem, StoreError
from kdtune.models.heads import build_network
from kdtune.models.published import Layout, layout_of
from kdtune.parse import first_line, printable
from kdtune.train.importing.wrapped import find_state

#: The kind of file that is allowed, for messages.
EXPECTED = "a state dict saved by torch.save"
#: Maximum number of tensor problems listed.
SHOWN = 10
#: Parts of a network that a file may lack as a whole.
HEADS = ("head", "projector")


@dataclass(frozen=True)
class ForeignWeights:
    """The usable weights of a file."""

    tensors: dict[str, Tensor]
    """Our name → tensor, sorted by name, with the network's types and shapes."""
    layout: str
    """pcl or torchvision."""
    heads: tuple[str, ...]
    """Those that the file holds besides the backbone: head, projector."""
    found: str
    """Where in the file the weights were and which prefix was removed, in words; empty for a bare state dict."""


def read_foreign(file: Path, config: TrialConfig, chosen: str | None = None) -> ForeignWeights:
    """Return the weights in `file` for the network and target of `config`: the whole backbone, and any heads.

    Converts floating point of any precision to the network's float32. `chosen` names one of several state dicts (see
    wrapped.py). Raises StoreError with every problem.
    """
    found = find_state(_read_tensors(file), file, _fitting(config), chosen)
    state = found.tensors
    layout = _fitting_layout(state, config, file)
    with torch.device("meta"):  # only names, types and shapes are needed
        wanted = build_network(config, _outputs(state, config)).state_dict()
    names = {ours: layout.theirs(ours) for ours in sorted(wanted)}
    heads = tuple(h for h in HEADS if any(ours.startswith(f"{h}.") and names[ours] in state for ours in names))

    tensors: dict[str, Tensor] = {}
    problems: list[Problem] = []
    for ours, theirs in names.items():
        if ours.split(".")[0] not in ("backbone", *heads):
            continue
        if theirs in state:
            head = config.loss.target if ours.startswith("head.") else None
            problem = _problem(theirs, state[theirs], wanted[ours], head)
            if problem is None:
                tensors[ours] = state[theirs].to(wanted[ours].dtype).clone(memory_format=torch.contiguous_format)
            else:
                problems.append(problem)
        elif ours.endswith(".num_batches_tracked"):
            tensors[ours] = torch.zeros((), dtype=torch.long)  # old checkpoints have none
        else:
            problems.append(Problem(theirs or ours, f"is missing, expected {_shape(wanted[ours])}"))
    known = set(names.values())
    unknown = [name for name in state if name not in known and not layout.drops(name)]
    problems += [Problem(name, f"is unknown, got {_shape(state[name])}") for name in unknown]
    if problems:
        raise StoreError(_shortened(problems, config, file))
    return ForeignWeights(tensors, layout.name, heads, str(found))


def _fitting(config: TrialConfig) -> Callable[[Collection[str]], bool]:
    """Return a predicate: whether names include at least half of the backbone's, in a layout that kdtune knows."""
    with torch.device("meta"):
        ours = [name for name in build_network(config, 1).state_dict() if name.startswith("backbone.")]

    def fits(names: Collection[str]) -> bool:
        if _is_our_own(names):  # _fitting_layout refuses it with its own message
            return True
        layout = layout_of(names, config.student)
        return layout is not None and 2 * sum(layout.theirs(name) in names for name in ours) >= len(ours)

    return fits


def _read_tensors(file: Path) -> object:
    try:
        opened = file.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the file's name
        reason = getattr(error, "strerror", None) or error
        raise StoreError.at(printable(str(file)), f"cannot be read: {reason}") from error
    with opened:
        if wrong := _archive_problem(opened):
            raise StoreError.at(file, wrong, EXPECTED)
        opened.seek(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns about what kdtune then refuses
                return torch.load(opened, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for other files
            what = "is damaged, or holds more than tensors and plain values, which is not loaded: it could run code"
            raise StoreError.at(file, what, EXPECTED) from error


def _archive_problem(opened: BinaryIO) -> str:
    """Return what is wrong with a zip archive (torch.save writes one); empty if it is intact or no archive.

    torch does not verify the checksums. A file saved without them has none that matches, and is accepted.
    """
    if not zipfile.is_zipfile(opened):
        return ""
    try:
        with zipfile.ZipFile(opened) as archive:
            parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                return "is a compressed archive, which torch.save does not write"
            wrong = [part.filename for part in parts if not _has_checksum(archive, part)]
    except Exception as error:  # zipfile raises many kinds as well
        return f"is damaged: {first_line(error)}"
    return f"is damaged: {printable(wrong[0])} does not match its checksum" if 0 < len(wrong) < len(parts) else ""


def _has_checksum(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(part) as content:
            while content.read(1 << 20):
                pass
    except zipfile.BadZipFile:
        return False
    return True


def _fitting_layout(state: Mapping[str, Tensor], config: TrialConfig, file: Path) -> Layout:
    """Return the file's layout. Raises StoreError if it is unknown, or belongs to another backbone or target."""
    student, target = config.student, config.loss.target
    if _is_our_own(state):
        raise StoreError.at(file, "is a checkpoint of kdtune: import the folder of its trial")
    layout = layout_of(state, student)
    if layout is None:
        some = printable(", ".join(list(state)[:3]))
        what = f"holds no weights of {student.backbone} under known names; its first names are {some}"
        raise StoreError.at(file, what, "PCL's r3d, r21d, c3d and R3D-18; torchvision's video models")
    problems = []
    if layout.backbone != student.backbone:
        what = f"holds PCL's {layout.backbone}, but student.backbone is {student.backbone}"
        problems.append(Problem(str(file), what, f"student.backbone: {layout.backbone}"))
    has_heads = any(layout.theirs(name) in state for name in ("head.weight", "projector.0.weight"))
    if has_heads and layout.target != target:
        what = f"has heads that learned {layout.target} labels, but loss.target is {target}"
        problems.append(Problem(str(file), what, f"loss.target: {layout.target}"))
    if problems:
        raise StoreError(problems)
    return layout


def _is_our_own(names: Collection[str]) -> bool:
    return "head.weight" in names and any(name.startswith("backbone.") for name in names)


def _outputs(state: Mapping[str, Tensor], config: TrialConfig) -> int:
    """Return the number of the head's classes: for actions the file's, since its data set is unknown here."""
    linear = state.get("linear.weight")
    if config.loss.target == "action" and linear is not None and linear.ndim > 0:
        return len(linear)
    return PRETEXT_CLASSES


def _problem(name: str, got: Tensor, wanted: Tensor, head: str | None) -> Problem | None:
    """Return what is wrong with a tensor of the file, or None; `head` is the target if it belongs to the head."""
    if got.layout is not torch.strided or got.is_quantized or got.is_meta:
        return Problem(name, "is sparse, quantised or without data", "a plain tensor")
    if got.untyped_storage().nbytes() < got.numel() * got.element_size():
        return Problem(name, f"declares {_shape(got)}, but stores fewer numbers", "a plain tensor")
    if head is not None and got.ndim == wanted.ndim and len(got) != len(wanted):
        # Weight and bias give the same message, which is then shown once.
        return Problem(name.rpartition(".")[0], f"has {len(got)} outputs, this network's {head} head {len(wanted)}")
    if got.shape != wanted.shape:
        return Problem(name, f"got {_shape(got)}, expected {_shape(wanted)}")
    if got.is_floating_point() != wanted.is_floating_point() or got.is_complex():
        return Problem(name, f"got the type {got.dtype}, expected {wanted.dtype}")
    infinite = int((~got.to(wanted.dtype).isfinite()).sum())
    return Problem(name, f"is not finite in {infinite} of {got.numel()} places") if infinite else None


def _shape(tensor: Tensor) -> str:
    return f"the shape {list(tensor.shape)}"


def _shortened(problems: list[Problem], config: TrialConfig, file: Path) -> list[Problem]:
    """Return each problem once, prefixed with the file; at most SHOWN, then a count of the rest."""
    each = list(dict.fromkeys(problems))
    shown = [Problem(printable(f"{file}: {found.where}"), found.what, found.allowed) for found in each[:SHOWN]]
    if len(each) > SHOWN:
        more = f"and {len(each) - SHOWN} more such problems; is the file for this network, {config.architecture}?"
        shown.append(Problem(str(file), more))
    return shown
