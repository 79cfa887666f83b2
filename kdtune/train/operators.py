"""Which operator is not deterministic: a run is watched twice, and the first output that differs tells.

Operators that torch refuses under deterministic algorithms are named, too, all at once.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.module_tracker import ModuleTracker

#: Runs that are held against the first, until one differs: what is left to chance may come out alike.
ATTEMPTS = 3
#: What torch says of an operator that it refuses (at::Context::alertNotDeterministic).
REFUSED = re.compile(r"(\S+) does not have a deterministic implementation")


@dataclass(frozen=True)
class Call:
    """One call of an operator in a run."""

    position: int
    """How many were called before it."""
    operator: str
    """As in `aten.convolution_backward.default`."""
    backward: bool
    module: str
    """The innermost module that it is for, as in `C3D.layers.18`; empty outside of all."""
    digest: bytes
    """Of every tensor that it made or wrote to. Views show what was seen before; what is only allocated may hold
    anything: both count for nothing."""

    def __str__(self) -> str:
        passes = "backward pass" if self.backward else "forward pass"
        return f"{self.operator} ({f'{passes} of {self.module}, ' if self.module else ''}operator {self.position})"


@dataclass(frozen=True)
class Operators:
    """Those that keep a run from repeating its bits."""

    first: Call | None
    """The first with another output in another run; None where every one repeated."""
    refused: tuple[str, ...]
    """Those that torch refuses, each once, by torch's names."""

    def __str__(self) -> str:
        parts = [f"torch has no deterministic {', '.join(self.refused)}"] if self.refused else []
        parts += [f"the first operator that differs is {self.first}"] if self.first else []
        return "; ".join(parts) or "every operator repeated while watched"


def find_operators(run: Callable[[], object]) -> Operators:
    """Call `run`, which begins at the same place each time, until two calls differ, and name the operators.

    torch's settings are afterwards what they were before.
    """
    calls, refused = _watched(run)
    for _ in range(ATTEMPTS):
        for call, again in zip(calls, _watched(run)[0], strict=False):
            if (call.operator, call.digest) != (again.operator, again.digest):
                return Operators(call, refused)
    return Operators(None, refused)


def _watched(run: Callable[[], object]) -> tuple[list[Call], tuple[str, ...]]:
    with warnings.catch_warnings(record=True) as said, _settings_kept(), ModuleTracker() as tracker:
        warnings.simplefilter("always")
        # In threads of its own, the backward pass would be out of sight.
        with torch.autograd.set_multithreading_enabled(False), _Watch(tracker) as watch:
            run()
    refusals = [match[1] for warning in said if (match := REFUSED.match(str(warning.message)))]
    return watch.calls, tuple(dict.fromkeys(refusals))


@contextmanager
def _settings_kept() -> Iterator[None]:
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


class _Watch(TorchDispatchMode):
    """Sees every operator below autograd, hence those of the backward pass, too."""

    def __init__(self, tracker: ModuleTracker) -> None:
        super().__init__()
        self.tracker = tracker
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # A trial asks for refusals as it starts, and the first would end it. Here they are warnings, to be counted.
        torch.use_deterministic_algorithms(True, warn_only=True)
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        module = max(self.tracker.parents - {"Global"}, key=len, default="")
        digest = _digest(_results(func, args, kwargs, out))
        self.calls.append(Call(len(self.calls), str(func), self.tracker.is_bw, module, digest))
        return out


def _results(func: Any, args: Any, kwargs: Any, out: Any) -> Iterator[Tensor]:
    if func.is_view or "empty" in func.name() or "resize" in func.name():
        return
    # Some only write to their arguments, and return nothing (aten._foreach_add_).
    written = [
        args[place] if place < len(args) else kwargs.get(argument.name)
        for place, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    yield from (leaf for leaf in tree_leaves([written, out]) if isinstance(leaf, Tensor))


def _digest(tensors: Iterator[Tensor]) -> bytes:
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.detach().contiguous().view(-1).view(torch.uint8).cpu().numpy().data)
    return sha.digest()[:16]
