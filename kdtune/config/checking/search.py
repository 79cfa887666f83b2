"""Check the rules of a sweep file's section `search` that span several fields."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from kdtune.config.checking.start import start_problems
from kdtune.config.space import Scalar
from kdtune.config.sweep import MOST_CANDIDATES, MOST_KNOWN, SweepConfig
from kdtune.errors import Problem
from kdtune.parse import shortened


def search_problems(sweep: SweepConfig) -> Iterable[Problem]:
    """Yield the problems of a section `search` whose fields are each valid."""
    yield from _conditions(sweep)
    yield from start_problems(sweep)
    search = sweep.search
    if search.sampler != "grid" and search.candidates is None:
        yield Problem("search.candidates", f"is missing: the sampler {search.sampler} does not end by itself")
    if search.sampler == "grid":
        for name, parameter in search.space.items():
            if parameter.choice is None:
                yield Problem(f"search.space.{name}", "a grid needs a list of values")
    if search.sampler == "cmaes":
        ranges = [name for name, parameter in search.space.items() if parameter.choice is None and not parameter.when]
        if len(ranges) < 2:
            rule = "cmaes learns only ranges, and needs at least two of them without `when`"
            yield Problem("search.sampler", f"{rule}, got {', '.join(ranges) or 'none'}", "tpe, gp")
        if len(sweep.objectives) > 1:
            yield Problem("search.sampler", "cmaes supports one objective only", "tpe, gp, nsga2, random, qmc, grid")
    yield from _race(sweep)
    lists: list[tuple[str, list[Any]]] = [("search.seeds", list(search.first_seeds))]
    lists += [(f"search.blocks.{name}", list(values)) for name, values in search.blocks.items()]
    lists += [(f"search.space.{name}", list(parameter.choice or [])) for name, parameter in search.space.items()]
    for place, values in lists:
        if len(set(values)) < len(values):
            yield Problem(place, f"values must differ from each other, got {shortened(values)}")
    if not sweep.blocks():
        yield Problem("search.exclude", "leaves no block")
    if (large := _too_large(sweep)) is not None:
        yield large
        return
    for block in sweep.blocks():
        for name, parameter in sweep.space(block).items():
            if parameter.choice == []:
                yield Problem("search.exclude", f"leaves no value of {name} in block {block.label}")


def _race(sweep: SweepConfig) -> Iterable[Problem]:
    """Yield the problems of a race."""
    race = sweep.search.race
    if race is None:
        return
    if race.most < race.first:
        what = f"must be at least `first`, which is {race.first}, got {race.most}"
        yield Problem("search.seeds.race.most", what, f"{race.first} or more")
    if len(sweep.objectives) > 1:
        rule = f"a race decides one question, got {len(sweep.objectives)} objectives"
        yield Problem("search.seeds", rule, "one objective, or a list of seeds")


def _too_large(sweep: SweepConfig) -> Problem | None:
    """Return the problem of too many candidates or trials, counted without making them; None where there are few."""
    search, blocks = sweep.search, sweep.blocks()
    if search.sampler != "grid":
        candidates = (search.candidates or 0) * len(blocks)
        if candidates > MOST_CANDIDATES:
            what = f"the blocks have too many candidates in all{_size(sweep)}"
            return Problem("search.candidates", what, f"{MOST_CANDIDATES:,} at most")
    else:
        trials = 0
        for block in blocks:
            trials += sweep.candidates(block) * len(search.first_seeds)
            if trials > MOST_KNOWN:
                what = f"the grid has too many trials{_size(sweep)}"
                return Problem("search.space", what, f"{MOST_KNOWN:,} at most; another sampler tries only some points")
    controls = len(search.controls) * len(search.first_seeds) * len(blocks)
    if controls > MOST_KNOWN:
        what = f"controls × seeds × blocks give too many trials, got {controls:,}"
        return Problem("search.controls", what, f"{MOST_KNOWN:,} at most")
    return None


def _size(sweep: SweepConfig) -> str:
    """Return how many candidates a sweep has, in words; empty where that is unknown without making them."""
    search = sweep.search
    each = search.candidates
    if search.sampler == "grid":
        conditional = any(parameter.when for parameter in search.space.values())
        points = math.prod(len(parameter.choice or []) for parameter in search.space.values())
        each = None if conditional else min(points, search.candidates or points)
    if each is None:
        return ""
    seeds = f" for each of {len(search.first_seeds):,} seeds" if len(search.first_seeds) > 1 else ""
    return f", got {each:,} in each of {len(sweep.blocks()):,} block{'s' if len(sweep.blocks()) > 1 else ''}{seeds}"


def _conditions(sweep: SweepConfig) -> Iterable[Problem]:
    """Yield the problems of `when` and `exclude`, which name values of blocks and choices."""
    search = sweep.search
    values: dict[str, list[Scalar] | None] = dict(search.blocks)
    for name, parameter in search.space.items():
        for condition, value in (parameter.when or {}).items():
            place = f"search.space.{name}.when.{condition}"
            if condition not in values:
                yield Problem(place, "must name an earlier parameter", ", ".join(values) or "none")
            else:
                yield from _never(place, value, values[condition])
        values[name] = parameter.choice
    for i, out in enumerate(search.exclude):
        free = [name for name in out if name not in search.blocks]
        if not out or len(free) > 1 or any(values.get(name) is None for name in free):
            rule = "must name blocks and at most one choice of the space"
            yield Problem(f"search.exclude.{i}", f"{rule}, got {', '.join(out) or 'nothing'}")
            continue
        for name, value in out.items():
            yield from _never(f"search.exclude.{i}.{name}", value, values[name])


def _never(place: str, value: Scalar, choice: list[Scalar] | None) -> Iterable[Problem]:
    """Yield a problem if a condition names a value that never occurs: it would silently have no effect."""
    if choice is None:
        yield Problem(place, "must name a parameter that is a list of values")
    elif value not in choice:
        yield Problem(place, f"is not one of the parameter's values, got {value!r}", ", ".join(map(str, choice)))
