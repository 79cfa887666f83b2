"""A job: what one Ray Tune trial runs. A candidate with all its seeds, or one control, or one teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from kdtune.config.metrics import column
from kdtune.config.space import Scalar
from kdtune.config.sweep import Block, ObjectiveConfig
from kdtune.config.trial import FINETUNE_STAGE, TrialConfig
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
    """One for each seed, as are the next three."""
    keys: tuple[str, ...]
    params: tuple[dict[str, Any], ...]
    """Flat, for tables and MLflow: student, teacher, lambda, tau, alpha, fraction and what else is searched."""
    finetuned: tuple[str, ...] = ()
    """Keys of the fine-tunings that follow, where the trials have one."""
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


def stage_value(
    evaluations: Sequence[Mapping[str, Mapping[str, float]]], objective: ObjectiveConfig, reduce: str
) -> float | None:
    """Mean over the seeds of the objective's metric, from one evaluation a seed, as `stage.reduce` takes it.

    None where they do not have it: what an action head alone is measured by exists after fine-tuning only.
    """
    name = column(objective.metric, reduce)
    if any(name not in evaluation[objective.split] for evaluation in evaluations):
        return None
    return fmean(evaluation[objective.split][name] for evaluation in evaluations)


def outcome_in_store(job: Job, objective: ObjectiveConfig, store: Store) -> Outcome | None:
    """What the records in the store say of `job`, or None while they do not reach its end.

    A function of the records and the job's bars alone: a trial that another sweep trained further is pruned here at
    the same stage as it would have been if it had been trained here.
    """
    first = job.configs[0]
    phases: list[tuple[tuple[str, ...], list[str]]] = [(job.keys, list(first.stage_epochs))]
    if job.finetuned:
        phases.append((job.finetuned, [FINETUNE_STAGE]))
    values: dict[str, float] = {}
    for keys, stages in phases:
        files = [store.trial(key).fetch() for key in keys]
        reached = [trial.stages() for trial in files]
        for stage in stages:
            if not all(stage in seen for seen in reached):
                return None
            value = stage_value([seen[stage] for seen in reached], objective, first.stage.reduce)
            if value is None:
                continue
            values[stage] = value
            if not math.isfinite(value):
                return Outcome("failed", None, values, error=f"{objective.metric} is {value} at stage {stage}")
            if not clears(value, job.bars.get(stage), objective.mode):
                return Outcome("pruned", None, values, stage)
        if any(trial.result() is None for trial in files):
            return None
    return Outcome("complete", values.get(objective.stage), values)
