"""Check what a search starts from: earlier sweeps (`search.from`) and points to try first (`search.first`)."""

from __future__ import annotations

from collections.abc import Iterable

from kdtune.config.points import fitted
from kdtune.config.search import LEARNING
from kdtune.config.space import KINDS, Parameter, Scalar, resolve
from kdtune.config.sweep import SweepConfig
from kdtune.errors import Problem
from kdtune.near import did_you_mean
from kdtune.parse import shortened


def start_problems(sweep: SweepConfig) -> Iterable[Problem]:
    """Yield the problems of `search.from` and `search.first`, whose fields are each valid."""
    search = sweep.search
    if search.from_ and search.sampler not in LEARNING:
        what = f"the sampler {search.sampler} does not learn from results"
        yield Problem("search.from", what, f"sampler: {', '.join(LEARNING)}")
    if search.from_ != "compatible" and len(set(search.from_)) < len(search.from_):
        yield Problem("search.from", f"values must differ from each other, got {shortened(search.from_)}")
    if not search.first:
        return
    if search.sampler == "grid":
        yield Problem("search.first", "a grid tries all its points in their own order", "[]")
    elif search.candidates is not None and len(search.first) > search.candidates:
        what = f"has more points than a block has candidates, got {len(search.first)}"
        yield Problem("search.first", what, f"{search.candidates} at most")
    for i, point in enumerate(search.first):
        yield from _point_problems(sweep, f"search.first.{i}", point)
        if point in search.first[:i]:
            yield Problem(f"search.first.{i}", "is given twice")


def _point_problems(sweep: SweepConfig, place: str, point: dict[str, Scalar]) -> Iterable[Problem]:
    space = {resolve(name): (name, parameter) for name, parameter in sweep.search.space.items()}
    given = {resolve(name): value for name, value in point.items()}
    if not point or len(given) < len(point):
        yield Problem(place, "must give at least one parameter, each once", ", ".join(sweep.search.space))
    sound = bool(point)
    for name, value in point.items():
        if resolve(name) not in space:
            sound = False
            what = f"is not a parameter of search.space{did_you_mean(name, list(sweep.search.space))}"
            yield Problem(f"{place}.{name}", what, ", ".join(sweep.search.space))
            continue
        own, parameter = space[resolve(name)]
        try:
            parameter.held(value)
        except ValueError:
            sound = False
            yield Problem(f"{place}.{name}", f"is not one of the parameter's values, got {value!r}", _values(parameter))
        # In a block without the condition's value the parameter is left out.
        conditions = {c: v for c, v in (parameter.when or {}).items() if c not in sweep.search.blocks}
        if any(given.get(resolve(condition)) != wanted for condition, wanted in conditions.items()):
            sound = False
            words = ", ".join(f"{condition}: {wanted}" for condition, wanted in conditions.items())
            yield Problem(f"{place}.{name}", f"{own} exists only with {words}, which the point must give, too")
    if sound and all(fitted(sweep.space(block), block.values, point) is None for block in sweep.blocks()):
        yield Problem(place, "is excluded from every block by search.exclude")


def _values(parameter: Parameter) -> str:
    """Return the parameter's values as the sweep file writes them."""
    kind = next(kind for kind in KINDS if getattr(parameter, kind) is not None)
    values = list(getattr(parameter, kind))
    return ", ".join(map(str, values)) if kind == "choice" else f"{kind}: {values}"
