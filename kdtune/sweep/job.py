"""A job: what one Ray Tune trial runs. A candidate with all its seeds, or one control, or one teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from kdtune.config.space import Scalar
from kdtune.config.sweep import Block, ObjectiveConfig
from kdtune.config.trial import TrialConfig
from kdtune.store import Store
from kdtune.sweep.prune import clears

Kind = Literal["teacher", "control", "candidate"]
State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Job:
    """Trials that live and die together: the seeds of a candidate are pruned as one, by their mean."""

    kind: Kind
    name: str
    """Unique in its sweep, for people: `fraction=1.0 · candidate 3`."""
    block: Block | None
    number: int | None
    """The candidate's number, or the control's place in the file."""
    seeds: tuple[int, ...]
    values: Mapping[str, Scalar]
    configs: tuple[TrialConfig, ...]
    """One for each seed, as are the next two."""
    keys: tuple[str, ...]
    params: tuple[dict[str, Any], ...]
    """Flat, for tables and MLflow: student, teacher, lambda, tau, alpha, fraction and what else is searched."""
    needs: tuple[str, ...] = ()
    """Keys of the teachers that must be complete first."""
    bars: Mapping[str, float] = field(default_factory=dict)
    """Stage → what the mean over the seeds must reach there."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    state: State
    objective: float | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    """Stage → the objective's metric, mean over the seeds; up to the stage where it was pruned."""
    stage: str | None = None
    """Where it was pruned."""
    error: str | None = None


def stage_value(evaluations: list[dict[str, Any]], objective: ObjectiveConfig) -> float:
    """Mean over the seeds of the objective's metric, from one evaluation a seed."""
    return fmean(evaluation[objective.split][objective.metric] for evaluation in evaluations)


def outcome_in_store(job: Job, objective: ObjectiveConfig, store: Store) -> Outcome | None:
    """What the records in the store say of `job`, or None while they do not reach its end.

    A function of the records and the job's bars alone: a trial that another sweep trained further is pruned here at
    the same stage as it would have been if it had been trained here.
    """
    files = [store.trial(key) for key in job.keys]
    reached = [trial.stages() for trial in files]
    values: dict[str, float] = {}
    for stage in job.configs[0].stage_epochs:
        if not all(stage in stages for stages in reached):
            return None
        values[stage] = stage_value([stages[stage] for stages in reached], objective)
        if not math.isfinite(values[stage]):
            return Outcome("failed", None, values, error=f"{objective.metric} is {values[stage]} at stage {stage}")
        if not clears(values[stage], job.bars.get(stage), objective.mode):
            return Outcome("pruned", None, values, stage)
    if any(trial.result() is None for trial in files):
        return None
    return Outcome("complete", values.get(objective.stage), values)
