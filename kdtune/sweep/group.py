"""A group of trials that one worker trains: a candidate with all its seeds, one control, or one teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any

from kdtune.config.metrics import PER_VIDEO, column, is_cost
from kdtune.config.search import ObjectiveConfig
from kdtune.config.sweep import Block
from kdtune.config.trial import FINETUNE_STAGE, TrialConfig
from kdtune.errors import DamageError
from kdtune.history.events import Asked, Kind, Outcome
from kdtune.store import StoreFiles, TrialFiles
from kdtune.store.contents import EpochRecord
from kdtune.store.seal import passed_over
from kdtune.sweep.prune import dominated, reaches
from kdtune.train.soundness import complete_rows, read_result, read_rows
from kdtune.train.soundness import per_video as recorded_per_video


@dataclass(frozen=True)
class TrialGroup:
    """Trials that are trained, pruned and retried together: a candidate's seeds are pruned by their mean."""

    asked: Asked
    """The event by which the sweep asks for the group: its name, kind, seeds, keys and thresholds."""
    block: Block | None
    configs: tuple[TrialConfig, ...]
    """One per seed."""
    needs: tuple[str, ...] = ()
    """Keys of the teachers that must be complete before the group starts."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Costs of the candidate's network that are known before training, as far as pruning compares them."""
    infeasible: str = ""
    """Why the candidate is not to be trained; empty for a group that is."""
    promotion: int = 0
    """Number of times that the candidate was pruned and taken up again."""

    @property
    def name(self) -> str:
        return self.asked.group

    @property
    def kind(self) -> Kind:
        return self.asked.kind

    # Ray Tune copies and prints a trial's configuration several times. A group is immutable, and its name is enough.
    def __deepcopy__(self, memo: dict[int, Any]) -> TrialGroup:
        return self

    def __repr__(self) -> str:
        return f"TrialGroup({self.name!r})"


#: Split → metric → value of one trial at one stage.
Evaluation = Mapping[str, Mapping[str, float]]


def stage_values(evaluations: Sequence[Evaluation], objective: ObjectiveConfig, reduce: str) -> list[float] | None:
    """Return the objective's metric for each seed, as `stage.reduce` takes it.

    None if the evaluations lack it: an action head's metrics exist only after fine-tuning.
    """
    name = column(objective.metric, reduce)
    if any(name not in evaluation[objective.split] for evaluation in evaluations):
        return None
    return [evaluation[objective.split][name] for evaluation in evaluations]


def stage_point(
    group: TrialGroup, evaluations: Sequence[Evaluation], objectives: Sequence[ObjectiveConfig]
) -> tuple[float, ...]:
    """Return the objectives that are known at a stage, means over the seeds, signed so that more is better.

    An accuracy or loss is known where it is measured; a cost if it is known before training. Empty if a value is not
    finite.
    """
    reduce, point = group.configs[0].stage.reduce, []
    for objective in objectives:
        if is_cost(objective.metric):
            values = [group.costs[objective.metric]] if objective.metric in group.costs else None
        else:
            values = stage_values(evaluations, objective, reduce)
        if values is not None:
            point.append(fmean(values) if objective.mode == "max" else -fmean(values))
    return tuple(point) if all(map(math.isfinite, point)) else ()


def continues(
    group: TrialGroup, stage: str, evaluations: Sequence[Evaluation], objectives: Sequence[ObjectiveConfig]
) -> bool:
    """Return whether the group continues after a stage: its mean reaches the threshold there, and no point of the front
    there dominates its own."""
    first = objectives[0]
    values = stage_values(evaluations, first, group.configs[0].stage.reduce)
    if values is not None and not reaches(fmean(values), group.asked.thresholds.get(stage), first.mode):
        return False
    if not (front := group.asked.fronts.get(stage, ())):
        return True
    point = stage_point(group, evaluations, objectives)
    return bool(point) and not dominated(point, front)


def outcome_in_store(group: TrialGroup, objectives: Sequence[ObjectiveConfig], store: StoreFiles) -> Outcome | None:
    """Return how `group` ended according to its verdict or the store, or None if its records are incomplete or damaged:
    the worker that trains the group makes them again.

    This depends on the records and the group's thresholds alone: a trial that another sweep trained further is pruned
    at the same stage as if it had been trained here.
    """
    if group.infeasible:
        return Outcome("infeasible", error=group.infeasible)
    try:
        return _outcome(group, objectives, store)
    except DamageError:
        return None


def _outcome(group: TrialGroup, objectives: Sequence[ObjectiveConfig], store: StoreFiles) -> Outcome | None:
    if group.kind == "refit":  # it has trained on validation
        objectives = [objective.model_copy(update={"split": "test"}) for objective in objectives]
    first, reduce = objectives[0], group.configs[0].stage.reduce
    phases: list[tuple[tuple[str, ...], list[str]]] = [(group.asked.keys, list(group.configs[0].stage_epochs))]
    if group.asked.finetuned:
        phases.append((group.asked.finetuned, [FINETUNE_STAGE]))
    reached: dict[str, list[Evaluation]] = {}
    per_video: tuple[str, ...] = ()
    stages: dict[str, float] = {}
    points: dict[str, tuple[float, ...]] = {}
    for keys, names in phases:
        files = [store.trial(key).fetch() for key in keys]
        ends = [complete_rows(trial) for trial in files]
        seen = [
            {row["stage"]: row for row in (read_rows(trial) if rows is None else rows) if "stage" in row}
            for trial, rows in zip(files, ends, strict=True)
        ]
        for stage in names:
            if not all(stage in rows for rows in seen):
                return None
            reached[stage] = [rows[stage]["evaluation"] for rows in seen]
            if stage == first.stage:
                per_video = _per_video(files, [rows[stage] for rows in seen], first, reduce)
            values = stage_values(reached[stage], first, reduce)
            if values is not None:
                stages[stage] = fmean(values)
            if len(objectives) > 1 and (point := stage_point(group, reached[stage], objectives)):
                points[stage] = point
            if not continues(group, stage, reached[stage], objectives):
                return Outcome("pruned", stages=stages, points=points, stage=stage)
        if None in ends:
            return None
    if group.kind == "teacher":  # its epochs and stages are its own
        return Outcome("complete", ((stages[first.stage],),) if first.stage in stages else (), stages)
    found = [_objective_values(group, objective, reached, store) for objective in objectives]
    for objective, values in zip(objectives, found, strict=True):
        if not values or not all(map(math.isfinite, values)):
            what = f"is {fmean(values)}" if values else _unmeasured(group, store)
            return Outcome("failed", stages=stages, error=f"{objective.metric} {what}")
    return Outcome("complete", tuple(map(tuple, found)), stages, per_video=per_video, points=points)


def _per_video(
    files: Sequence[TrialFiles], rows: Sequence[EpochRecord], objective: ObjectiveConfig, reduce: str
) -> tuple[str, ...]:
    """Return how each video was answered, one text per seed; empty if a row lacks that, or is damaged (with a note)."""
    metric = objective.metric
    if metric not in PER_VIDEO or column(metric, reduce) != metric:
        return ()
    texts = []
    for trial, row in zip(files, rows, strict=True):
        text = passed_over(partial(recorded_per_video, trial, row, objective.split, metric), None)
        if text is None:
            return ()
        texts.append(text)
    return tuple(texts)


def _unmeasured(group: TrialGroup, store: StoreFiles) -> str:
    """Return why an objective has no value."""
    reasons = [(read_result(store.trial(key)) or {}).get("cost_unmeasured") for key in group.asked.keys]
    why = next(filter(None, reasons), None)
    return f"was not {f'measured ({why})' if why else 'recorded'}: remove its folder to train it again"


def _objective_values(
    group: TrialGroup, objective: ObjectiveConfig, reached: Mapping[str, Sequence[Evaluation]], store: StoreFiles
) -> list[float]:
    """Return the objective's value for each seed; empty if a trial's record lacks it."""
    if is_cost(objective.metric):
        costs = [(read_result(store.trial(key)) or {}).get("cost") or {} for key in group.asked.keys]
        return [cost[objective.metric] for cost in costs] if all(objective.metric in cost for cost in costs) else []
    return stage_values(reached.get(objective.stage, []), objective, group.configs[0].stage.reduce) or []
