"""Check the rules of a sweep file that span several fields."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pydantic import ValidationError

from kdtune.config.checking.constraints import constraint_problems
from kdtune.config.checking.search import search_problems
from kdtune.config.metrics import METRICS, OF_HEAD, available, is_cost
from kdtune.config.points import fitted
from kdtune.config.reading.validate import unknown_path
from kdtune.config.schedules import WeightSchedule
from kdtune.config.space import Scalar, is_path, resolve
from kdtune.config.sweep import MOST_BLOCKS, Block, SweepConfig
from kdtune.config.trial import FINETUNE_STAGE, TrialConfig
from kdtune.errors import Problem
from kdtune.names import LONGEST_NAME, quoted

_ALL = Block(0, {})
#: Maximum length of a chain of teachers.
LONGEST_CHAIN = 10
#: Maximum number of (block, value) pairs to try, which takes seconds.
MOST_PAIRS = 10_000


def sweep_problems(sweep: SweepConfig) -> list[Problem]:
    """Return all problems of a sweep whose fields are each valid."""
    if (blocks := sweep.block_count) > MOST_BLOCKS:  # checked before any block is made
        what = f"the blocks' values have {blocks:,} combinations"
        return [Problem("search.blocks", what, f"{MOST_BLOCKS:,} at most; a value may be searched instead")]
    problems = [*_names(sweep), *_values(sweep), *_teachers(sweep), *_stages(sweep), *search_problems(sweep)]
    problems += constraint_problems(sweep)
    # Combinations of values are tried only if each value is valid by itself.
    return problems or list(_combinations(sweep))


def named_trials(sweep: SweepConfig) -> dict[str, TrialConfig]:
    """Return place in the file → trial, for all trials that a sweep file describes."""
    return {"trial": sweep.trial, **{f"teachers.{name}": config for name, config in sweep.teachers.items()}}


def placed_values(sweep: SweepConfig) -> Iterable[tuple[str, str, list[Scalar]]]:
    """Yield (place, name, values) of each parameter that is searched, blocked on or set in a control."""
    search = sweep.search
    for name, parameter in search.space.items():
        yield f"search.space.{name}", name, parameter.extremes
    for name, values in search.blocks.items():
        yield f"search.blocks.{name}", name, values
    for i, control in enumerate(search.controls):
        for name, value in control.items():
            yield f"search.controls.{i}.{name}", name, [value]


def _names(sweep: SweepConfig) -> Iterable[Problem]:
    seen: dict[str, str] = {}
    for place, name, _ in placed_values(sweep):
        if not is_path(name):
            yield unknown_path(place, name, "is not a parameter of a trial")
        elif resolve(name) == "seed":
            yield Problem(place, "seeds cannot be searched", "search.seeds")
        elif resolve(name) == "stage.reduce":
            yield Problem(place, "must be the same for all trials of a sweep", "trial.stage.reduce")
        elif name.startswith("finetune.") and sweep.trial.finetune is None:
            yield Problem(place, "needs trial.finetune: either all trials are fine-tuned or none", "finetune: {}")
        elif not _has_schedule(sweep, name):
            yield Problem(
                place, f"needs a schedule at trial.{_schedule_of(name)}", "{schedule: linear, from: 1.0, to: 0.5}"
            )
        elif not place.startswith("search.controls"):
            if (whole := _schedule_of(name)) in seen or any(_schedule_of(other) == resolve(name) for other in seen):
                others = [seen[other] for other in seen if other == whole or _schedule_of(other) == resolve(name)]
                yield Problem(place, f"a schedule and a part of it cannot both be set: {others[0]}")
            if resolve(name) in seen:
                yield Problem(place, f"the same parameter is set at {seen[resolve(name)]}")
            seen[resolve(name)] = place


def _schedule_of(name: str) -> str | None:
    """Return the path of the scheduled value that a name such as `loss.lambda.to` leads into; None for other names."""
    path, _, _ = resolve(name).rpartition(".")
    return path if path and path == resolve(path) and is_path(path) else None


def _has_schedule(sweep: SweepConfig, name: str) -> bool:
    """Return whether the trial has the schedule that `name` leads into; True for a name that leads into none."""
    if (path := _schedule_of(name)) is None:
        return True
    value: Any = sweep.trial
    for part in path.split("."):
        value = getattr(value, "lambda_" if part == "lambda" else part, None)
    return isinstance(value, WeightSchedule)


def _values(sweep: SweepConfig) -> Iterable[Problem]:
    """Yield the problems of each value, tried in a trial by itself so that its own field's rule reports it."""
    for place, name, values in placed_values(sweep):
        if not is_path(name) or resolve(name) == "teacher" or not _has_schedule(sweep, name):
            continue
        for value in values:
            for message in _refusals(partial(sweep.build, _ALL, {name: value}, 0))[:1]:
                yield Problem(place, message if "but got" in message else f"{message}, got {value!r}")


def _teachers(sweep: SweepConfig) -> Iterable[Problem]:
    known = ["none", *sweep.teachers]
    for place, name, values in placed_values(sweep):
        if resolve(name) == "teacher":
            for value in values:
                if value is not None and value not in known:
                    yield Problem(place, f"unknown teacher, got {value!r}", ", ".join(known))
    for name in sweep.teachers:
        if name == "none" or not name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
            rule = f"a teacher's name must be a line of text other than none, {LONGEST_NAME} characters at most"
            yield Problem("teachers", f"{rule}, got {quoted(name)}")
        broken = _broken_chain(sweep, name)
        if broken is not None:
            yield broken
        else:
            for message in _refusals(partial(sweep.teacher, name, _ALL)):
                yield Problem(f"teachers.{name}", message)
    if sweep.trial.teacher is not None:
        rule = "a sweep's teachers belong under teachers, and are chosen in search.space or search.blocks"
        yield Problem("trial.teacher", rule)


def _broken_chain(sweep: SweepConfig, name: str) -> Problem | None:
    """Return the problem of a teacher's chain: an unknown name, a circle, or too many teachers; None if it is sound."""
    where, chain = f"teachers.{name}.teacher", [name]
    while isinstance(above := sweep.teachers[chain[-1]].teacher, str) and above != "none":
        if above not in sweep.teachers:
            others = ", ".join(["none", *(other for other in sweep.teachers if other != name)])
            return Problem(where, f"unknown teacher, got {above!r}", others)
        if above in chain:
            return Problem(where, f"forms a circle: {' ← '.join([*chain, above])}")
        chain.append(above)
        if len(chain) > LONGEST_CHAIN:
            return Problem(where, f"is a chain of more than {LONGEST_CHAIN} teachers")
    return None


def _refusals(build: Callable[[], object]) -> list[str]:
    """Return pydantic's error messages for the trial that `build` makes."""
    try:
        build()
    except ValidationError as error:
        return [found["msg"].removeprefix("Input ") for found in error.errors()]
    return []


def _stages(sweep: SweepConfig) -> Iterable[Problem]:
    stages, objectives = sweep.trial.milestones, sweep.objectives
    named = ", ".join(stages)
    one = len(objectives) == 1
    for i, objective in enumerate(objectives):
        place = "objective" if one else f"objective.{i}"
        if is_cost(objective.metric):
            if i == 0:
                what = f"the first objective must be an accuracy or a loss, got {objective.metric}"
                yield Problem(f"{place}.metric", what)
            if objective.mode != "min":
                yield Problem(f"{place}.mode", f"{objective.metric} is a cost, got {objective.mode}", "min")
        elif objective.stage not in stages:
            missing = "; `finetune` needs trial.finetune" if objective.stage == FINETUNE_STAGE else ""
            yield Problem(f"{place}.stage", f"is not a stage of the trial, got {objective.stage!r}{missing}", named)
        elif not _measured(sweep, objective.stage, objective.metric):
            what = f"{objective.metric} is not measured at stage {objective.stage}"
            there = ", ".join(m for m in METRICS if _measured(sweep, objective.stage, m))
            yield Problem(f"{place}.metric", what, there)
        if objective in objectives[:i]:
            yield Problem(place, "is given twice")
    if sweep.prune.promote and (not sweep.prune.at or not one):
        why = "there are several objectives" if sweep.prune.at else "prune.at names no stage"
        yield Problem("prune.promote", f"takes up pruned candidates again, but {why}", "false")
    first = objectives[0]
    for i, stage in enumerate(sweep.prune.at):
        if stage not in stages:
            yield Problem(f"prune.at.{i}", f"is not a stage of the trial, got {stage!r}", named)
        elif first.stage in stages and stages[stage] >= stages[first.stage]:
            yield Problem(f"prune.at.{i}", f"must come before the objective's stage, got {stage!r}")
        elif not is_cost(first.metric) and not _measured(sweep, stage, first.metric):
            yield Problem(f"prune.at.{i}", f"{first.metric} is not measured at stage {stage}")
        elif not one and "loss.target" in map(resolve, sweep.search.space):
            what = "with several objectives, candidates are comparable only if loss.target is not searched"
            yield Problem(f"prune.at.{i}", what, "[]")


def _measured(sweep: SweepConfig, stage: str, metric: str) -> bool:
    """Return whether every trial records `metric` at `stage`."""
    named = [str(v) for _, name, values in placed_values(sweep) if resolve(name) == "loss.target" for v in values]
    targets = ["action"] if stage == FINETUNE_STAGE else named or [sweep.trial.loss.target]
    return all(available(metric, target) for target in targets if target in OF_HEAD)


def _combinations(sweep: SweepConfig) -> Iterable[Problem]:
    """Yield the problems of values that are valid by themselves but clash with a block (as c3d with too few frames)."""
    values = sum(len(parameter.extremes) for parameter in sweep.search.space.values()) + len(sweep.search.controls)
    values += len(sweep.search.first)
    if (pairs := values * len(sweep.blocks())) > MOST_PAIRS:
        what = f"blocks and values of the space form {pairs:,} pairs, and each is tried"
        yield Problem("search.blocks", what, f"{MOST_PAIRS:,} at most")
        return
    seed = sweep.search.first_seeds[0]
    for block, control in itertools.product(sweep.blocks(), sweep.search.controls):
        for message in _refusals(partial(sweep.build, block, control, seed)):
            yield Problem("search.blocks", f"{block.label}: {message}")
    for block, (i, point) in itertools.product(sweep.blocks(), enumerate(sweep.search.first)):
        chosen = fitted(sweep.space(block), block.values, point)
        for message in _refusals(partial(sweep.build, block, chosen, seed)) if chosen is not None else ():
            yield Problem(f"search.first.{i}", f"in block {block.label}: {message}")
    for block in sweep.blocks():
        for name, parameter in sweep.space(block).items():
            for value in parameter.extremes:
                for message in _refusals(partial(sweep.build, block, {name: value}, seed)):
                    yield Problem(f"search.space.{name}", f"{value!r} in block {block.label}: {message}")
