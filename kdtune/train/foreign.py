"""Read a published checkpoint: its tensors under our names, or everything that is wrong with it in one message.

Nothing is left out in silence: tensors that are not known, missing, of another shape or type, or not finite are all
refused. Files are read as tensors only, so that loading never runs code.
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
from kdtune.train.wrapped import find_state

#: What is wanted of a file.
EXPECTED = "a state dict saved by torch.save"
#: How many problems with tensors are shown before it is said how many more there are.
SHOWN = 10
#: What of a network may be missing as a whole.
HEADS = ("head", "projector")


@dataclass(frozen=True)
class ForeignWeights:
    """What a file held."""

    tensors: dict[str, Tensor]
    """Our name → tensor, sorted by name; of the type and shape that the network wants."""
    layout: str
    """pcl or torchvision."""
    heads: tuple[str, ...]
    """Those that came along with the backbone: head, projector."""
    found: str
    """Where in the file they were, and what was taken off their names, in words; empty for a bare state dict."""


def read_foreign(file: Path, config: TrialConfig, chosen: str | None = None) -> ForeignWeights:
    """The weights in `file` for the network and target of `config`: the whole backbone, and the heads that it has.

    Floating point of any precision becomes the network's float32. `chosen` names one of several state dicts (see
    wrapped.py). Raises StoreError with every problem.
    """
    found = find_state(_read_tensors(file), file, _fitting(config), chosen)
    state = found.tensors
    layout = _fitting_layout(state, config, file)
    with torch.device("meta"):  # names, types and shapes alone
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
            tensors[ours] = torch.zeros((), dtype=torch.long)  # older checkpoints have none
        else:
            problems.append(Problem(theirs or ours, f"is missing, wanted {_shape(wanted[ours])}"))
    known = set(names.values())
    unknown = [name for name in state if name not in known and not layout.drops(name)]
    problems += [Problem(name, f"is not known, got {_shape(state[name])}") for name in unknown]
    if problems:
        raise StoreError(_shortened(problems, config, file))
    return ForeignWeights(tensors, layout.name, heads, str(found))


def _fitting(config: TrialConfig) -> Callable[[Collection[str]], bool]:
    """Whether names are, at least half of them, those of the backbone in a layout that is known here."""
    with torch.device("meta"):
        ours = [name for name in build_network(config, 1).state_dict() if name.startswith("backbone.")]

    def fits(names: Collection[str]) -> bool:
        if _is_our_own(names):  # refused as it is
            return True
        layout = layout_of(names, config.student)
        return layout is not None and 2 * sum(layout.theirs(name) in names for name in ours) >= len(ours)

    return fits


def _read_tensors(file: Path) -> object:
    try:
        opened = file.open("rb")
    except OSError as error:
        raise StoreError([Problem(str(file), f"cannot be read: {error.strerror}")]) from error
    except ValueError as error:  # a NUL in its name
        raise StoreError([Problem(printable(str(file)), f"cannot be read: {error}")]) from error
    with opened:
        if wrong := _archive_problem(opened):
            raise StoreError([Problem(str(file), wrong, EXPECTED)])
        opened.seek(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of what is then refused
                return torch.load(opened, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for what is no file of tensors
            what = "is damaged, or holds more than tensors and plain values, which is not loaded: it could run code"
            raise StoreError([Problem(str(file), what, EXPECTED)]) from error


def _archive_problem(opened: BinaryIO) -> str:
    """What is wrong with a zip archive, which torch.save writes; empty where it is whole, or no such archive.

    torch does not look at its checksums. Whoever saved without them has none that is right.
    """
    if not zipfile.is_zipfile(opened):
        return ""
    try:
        with zipfile.ZipFile(opened) as archive:
            parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                return "is a compressed archive, which torch.save does not write"
            wrong = [part.filename for part in parts if not _has_checksum(archive, part)]
    except Exception as error:  # zipfile raises many kinds, too
        return f"is damaged: {first_line(error)}"
    return f"is damaged: the checksum of {printable(wrong[0])} is another" if 0 < len(wrong) < len(parts) else ""


def _has_checksum(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(part) as content:
            while content.read(1 << 20):
                pass
    except zipfile.BadZipFile:
        return False
    return True


def _fitting_layout(state: Mapping[str, Tensor], config: TrialConfig, file: Path) -> Layout:
    """The layout of the file, which is of the right backbone and task. Raises StoreError."""
    student, target = config.student, config.loss.target
    if _is_our_own(state):
        raise StoreError([Problem(str(file), "is a checkpoint of kdtune: import the folder of its trial")])
    layout = layout_of(state, student)
    if layout is None:
        some = printable(", ".join(list(state)[:3]))
        what = f"holds no weights of {student.backbone} under names that are known here; its first are {some}"
        raise StoreError([Problem(str(file), what, "PCL's r3d, r21d, c3d and R3D-18; torchvision's video models")])
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
    """Classes of the network's head: of an action head as many as came along, for its data set is not known here."""
    linear = state.get("linear.weight")
    if config.loss.target == "action" and linear is not None and linear.ndim > 0:
        return len(linear)
    return PRETEXT_CLASSES


def _problem(name: str, got: Tensor, wanted: Tensor, head: str | None) -> Problem | None:
    """What is wrong with a tensor of the file, if anything; `head` is the target that it serves as a head."""
    if got.layout is not torch.strided or got.is_quantized or got.is_meta:
        return Problem(name, "is sparse, quantised or empty of numbers", "a plain tensor")
    if got.untyped_storage().nbytes() < got.numel() * got.element_size():
        return Problem(name, f"says {_shape(got)}, but repeats fewer numbers than that", "a plain tensor")
    if head is not None and got.ndim == wanted.ndim and len(got) != len(wanted):
        # Weight and bias say so in the same words, which are then shown once.
        return Problem(name.rpartition(".")[0], f"has {len(got)} outputs, this network's {head} head {len(wanted)}")
    if got.shape != wanted.shape:
        return Problem(name, f"got {_shape(got)}, wanted {_shape(wanted)}")
    if got.is_floating_point() != wanted.is_floating_point() or got.is_complex():
        return Problem(name, f"got the type {got.dtype}, wanted {wanted.dtype}")
    infinite = int((~got.to(wanted.dtype).isfinite()).sum())
    return Problem(name, f"is not finite in {infinite} of {got.numel()} places") if infinite else None


def _shape(tensor: Tensor) -> str:
    return f"the shape {list(tensor.shape)}"


def _shortened(problems: list[Problem], config: TrialConfig, file: Path) -> list[Problem]:
    """Each problem once, with the file before it; no more than SHOWN of them."""
    each = list(dict.fromkeys(problems))
    shown = [Problem(printable(f"{file}: {found.where}"), found.what, found.allowed) for found in each[:SHOWN]]
    if len(each) > SHOWN:
        more = f"and {len(each) - SHOWN} more such problems; is this network, {config.architecture}, the file's?"
        shown.append(Problem(str(file), more))
    return shown
