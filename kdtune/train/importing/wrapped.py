"""Find the state dict in a published checkpoint: inside containers and under the prefixes that wrappers add.

DataParallel and DDP prefix every name with `module.`, torch.compile with `_orig_mod.`, Lightning with an attribute's
name such as `model.`; AveragedModel adds `n_averaged`. Trainers store the state dict beside other things, and often an
average's (EMA) beside the network's: only the user can tell which of the two is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeGuard

from torch import Tensor

from kdtune.errors import StoreError
from kdtune.parse import printable

#: Names under which a file may hold its state dict, by precedence if no state dict fits.
CONTAINERS = ("state_dict", "model", "network", "model_state_dict", "net")
#: Prefixes that only wrappers add.
WRAPPERS = ("module.", "_orig_mod.")
#: Counters that a wrapper adds beside the network's names.
COUNTERS = ("n_averaged",)
#: Maximum depth of nested containers.
DEEPEST = 16

#: Returns whether these names belong to the expected network.
Fits = Callable[[Collection[str]], bool]


@dataclass(frozen=True)
class Found:
    """A state dict in a file."""

    path: str
    """Its containers and its group of names, such as `state_dict` or `state_dict.ema`; empty at the top level."""
    tensors: dict[str, Tensor]
    prefix: str = ""
    """Prefix that was removed from every name."""
    others: dict[str, Tensor] = field(default_factory=dict)
    """For a group: the state dict's tensors outside it, under their names in the file."""

    def __str__(self) -> str:
        parts = [f"from {printable(self.path)}"] if self.path else []
        parts += [f"without the prefix {printable(self.prefix)}"] if self.prefix else []
        return ", ".join(parts)


def find_state(content: object, file: Path, fits: Fits, chosen: str | None = None) -> Found:
    """Return the state dict in the `content` of `file` that fits, or the first one if none does.

    `chosen` is the path of one of several. Raises StoreError if there is none, or if several fit and none is chosen.
    """
    plain = list(_states(content, ""))
    if not plain:
        allowed = f"name → tensor, at the top level or under {', '.join(CONTAINERS)}"
        raise StoreError.at(file, "holds no state dict", allowed)
    every = [found for state in plain for found in _unwrapped(state, fits)]
    by_path = {found.path: found for found in every}
    if chosen is not None:
        if chosen not in by_path:
            what = f"got {chosen}, which {file.name} does not hold"
            raise StoreError.at("--weights", what, ", ".join(filter(None, by_path)) or "nothing: it holds one")
        return by_path[chosen]
    fitting = [found for found in every if fits(found.tensors)]
    if len(fitting) > 1 and not all(_same(fitting[0], other) for other in fitting[1:]):
        paths = ", ".join(printable(found.path) or "the top level" for found in fitting)
        what = f"holds several state dicts of this network: {paths}; choose one with --weights"
        raise StoreError.at(file, what, f"--weights {' | '.join(f.path for f in fitting if f.path)}")
    if not fitting:
        return min(every, key=lambda found: _rank(found.path))
    # Names outside the group are kept, so that the comparison with the network refuses them instead of dropping them.
    return replace(fitting[0], tensors=fitting[0].tensors | fitting[0].others)


def _states(content: object, path: str, depth: int = 0) -> Iterator[Found]:
    """Yield every mapping of names to tensors in `content`."""
    if not isinstance(content, Mapping) or depth > DEEPEST:
        return
    if _is_state(content):
        yield Found(path, {name: value.detach() for name, value in content.items()})
        return
    for name, value in content.items():
        if isinstance(name, str):
            yield from _states(value, f"{path}.{name}" if path else name, depth + 1)


def _unwrapped(state: Found, fits: Fits) -> Iterator[Found]:
    """Yield the state dict without its wrappers and, if that does not fit, each group of its names that does."""
    bare = _without_prefix(state, fits)
    yield bare
    if not fits(bare.tensors):
        groups = dict.fromkeys(name.split(".")[0] for name in bare.tensors if "." in name)
        for group in groups if len(groups) > 1 else ():
            start = f"{group}."
            part = {name.removeprefix(start): v for name, v in bare.tensors.items() if name.startswith(start)}
            path = f"{state.path}.{group}" if state.path else group
            inner = _without_prefix(Found(path, part, f"{bare.prefix}{start}"), fits)
            if fits(inner.tensors):
                yield replace(inner, others={n: v for n, v in bare.tensors.items() if not n.startswith(start)})


def _without_prefix(state: Found, fits: Fits) -> Found:
    """Remove prefixes that all names share until the names fit; if they never fit, only the wrappers' prefixes."""
    found = known = state
    while not fits(found.tensors):
        names = [name for name in found.tensors if name not in COUNTERS]
        start = f"{names[0].split('.')[0]}." if names else ""
        if not start or not all(name.startswith(start) and name != start for name in names):
            return known
        tensors = {name.removeprefix(start): found.tensors[name] for name in names}
        found = Found(state.path, tensors, f"{found.prefix}{start}")
        if start in WRAPPERS and found.prefix == f"{known.prefix}{start}":
            known = found
    return found


def _same(one: Found, other: Found) -> bool:
    if one.tensors.keys() != other.tensors.keys():
        return False
    pairs = [(value, other.tensors[name]) for name, value in one.tensors.items()]
    return all(a is b or (a.shape == b.shape and a.dtype == b.dtype and bool(a.equal(b))) for a, b in pairs)


def _rank(path: str) -> int:
    return CONTAINERS.index(path) if path in CONTAINERS else len(CONTAINERS) if path else -1


def _is_state(found: object) -> TypeGuard[Mapping[str, Tensor]]:
    if not isinstance(found, Mapping) or not found:
        return False
    return all(isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items())
