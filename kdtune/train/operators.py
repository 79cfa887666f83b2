"""Find the operator that is not deterministic: record several runs and compare their outputs operator by operator.

Also lists every operator that torch refuses under deterministic algorithms.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.module_tracker import ModuleTracker

from kdtune.train.checkpoint import content_digest
from kdtune.train.profile import settings_kept

#: Maximum number of runs compared with the first: chance may repeat a result once.
ATTEMPTS = 3
#: torch's message for an operator that it refuses (at::Context::alertNotDeterministic).
REFUSED = re.compile(r"(\S+) does not have a deterministic implementation")


@dataclass(frozen=True)
class Call:
    """One call of an operator in a run."""

    position: int
    """Number of calls before it."""
    operator: str
    """Its name, such as `aten.convolution_backward.default`."""
    backward: bool
    module: str
    """The innermost module that calls it, such as `C3D.layers.18`; empty outside all modules."""
    digest: str
    """Digest of every tensor that it made or wrote to. Skips views, whose data was seen before, and allocations, whose
    content is arbitrary."""

    def __str__(self) -> str:
        passes = "backward pass" if self.backward else "forward pass"
        return f"{self.operator} ({f'{passes} of {self.module}, ' if self.module else ''}operator {self.position})"


@dataclass(frozen=True)
class Operators:
    """The operators that keep a run from repeating its bits."""

    first: Call | None
    """The first call whose output differed between runs; None if every output repeated."""
    refused: tuple[str, ...]
    """torch's names of the operators that it refuses, each once."""

    def __str__(self) -> str:
        parts = [f"torch has no deterministic {', '.join(self.refused)}"] if self.refused else []
        parts += [f"the first operator that differs is {self.first}"] if self.first else []
        return "; ".join(parts) or "every operator repeated while observed"


def find_operators(run: Callable[[], object]) -> Operators:
    """Call `run`, which must start from the same state each time, until two calls differ, and name the operators.

    Restores torch's settings.
    """
    calls, refused = _recorded(run)
    for _ in range(ATTEMPTS):
        for call, again in zip(calls, _recorded(run)[0], strict=False):
            if (call.operator, call.digest) != (again.operator, again.digest):
                return Operators(call, refused)
    return Operators(None, refused)


def _recorded(run: Callable[[], object]) -> tuple[list[Call], tuple[str, ...]]:
    """Call `run`; return its operator calls and the operators that torch refuses."""
    with warnings.catch_warnings(record=True) as caught, settings_kept(), ModuleTracker() as tracker:
        warnings.simplefilter("always")
        # A dispatch mode sees only its own thread: keep the backward pass in it.
        with torch.autograd.set_multithreading_enabled(False), _Recorder(tracker) as recorder:
            run()
    refusals = [match[1] for warning in caught if (match := REFUSED.match(str(warning.message)))]
    return recorder.calls, tuple(dict.fromkeys(refusals))


class _Recorder(TorchDispatchMode):
    """Records every operator below autograd, including those of the backward pass."""

    def __init__(self, tracker: ModuleTracker) -> None:
        super().__init__()
        self.tracker = tracker
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # The trial makes torch raise at the first refusal; warnings let the run finish and list them all.
        torch.use_deterministic_algorithms(True, warn_only=True)
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        module = max(self.tracker.parents - {"Global"}, key=len, default="")
        digest = content_digest(list(_results(func, args, kwargs, out)))
        self.calls.append(Call(len(self.calls), str(func), self.tracker.is_bw, module, digest))
        return out


def _results(func: Any, args: Any, kwargs: Any, out: Any) -> Iterator[Tensor]:
    """Yield the tensors that a call made or wrote to; none for views and allocations."""
    if func.is_view or "empty" in func.name() or "resize" in func.name():
        return
    # Some operators only write to their arguments and return nothing (aten._foreach_add_).
    written = [
        args[place] if place < len(args) else kwargs.get(argument.name)
        for place, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    yield from (leaf for leaf in tree_leaves([written, out]) if isinstance(leaf, Tensor))
