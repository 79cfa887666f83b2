"""The records of each trial of a sweep: stages, weights, cost and profile from the store, state from the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import FiniteFloat

from kdtune.config.space import Scalar
from kdtune.errors import Problem, StoreError
from kdtune.history.events import EpochRow
from kdtune.history.groups import UNTUNED, GroupHistory, State
from kdtune.history.metric import MetricSpec
from kdtune.history.reading import read_history
from kdtune.history.rows import epoch_row, parsed, readable
from kdtune.history.sweep import SweepHistory
from kdtune.history.videos import Videos, videos_of
from kdtune.names import is_name, quoted
from kdtune.near import did_you_mean
from kdtune.store import StoreFiles, TrialFiles
from kdtune.store.seal import passed_over

#: Stage → split → metric → value.
Stages = Mapping[str, Mapping[str, Mapping[str, float]]]
#: Stage → split → metric → how each video was answered.
StageOutcomes = Mapping[str, Mapping[str, Mapping[str, str]]]
Profile = Mapping[str, Scalar]


@dataclass(frozen=True)
class EarlierProfile:
    """The profile that trained a trial up to an epoch, before the trial resumed under another profile."""

    profile: Profile
    epoch: int = 0


@dataclass(frozen=True)
class TrialEnd:
    """The fields of result.json that a sweep needs."""

    epochs: int
    stages: Mapping[str, Mapping[str, Mapping[str, FiniteFloat]]]
    weights_sha256: str
    profile: Profile | None = None
    earlier_profiles: tuple[EarlierProfile, ...] = ()
    cost: Mapping[str, FiniteFloat] | None = None


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a group: one seed, with its fine-tuning."""

    group: GroupHistory
    place: int
    """Index among the group's seeds."""
    state: State
    """The state of the group; while the group is open, `running` if this trial has begun, else `pending`."""
    epochs: int
    """Number of epochs trained in this sweep, without fine-tuning."""
    stages: Stages
    """Stages reached in this sweep, with fine-tuning."""
    seconds: float
    """Seconds of all epochs in this sweep, with fine-tuning."""
    weights_sha256: str | None
    """SHA-256 of the weights at the end, or at the last stage reached."""
    objectives: Sequence[MetricSpec] = field(default=(), repr=False)
    """The objectives of `values`, in order; those of a refit are on test."""
    end: TrialEnd | None = field(default=None, repr=False)
    """The trial's result; None if it was not trained to its end in this sweep."""
    span: tuple[float, float] | None = None
    """When its first epoch began and its last one ended, in seconds since 1970; None if that is not known."""
    outcomes: StageOutcomes = field(default_factory=dict, repr=False)
    """How each video was answered at the stages that record it."""

    @property
    def key(self) -> str:
        return self.group.keys[self.place]

    @property
    def finetuned(self) -> str | None:
        """The key of its fine-tuning; None without one, or if the trial was pruned."""
        tuned = self.group.asked.finetuned
        return tuned[self.place] if tuned and self.state not in UNTUNED else None

    @property
    def seed(self) -> int:
        return self.group.seeds[self.place]

    @property
    def block(self) -> str | None:
        return self.group.asked.block

    @property
    def is_control(self) -> bool:
        """Whether it is a control, or the refit of one."""
        return self.group.asked.role == "control"

    @property
    def candidate(self) -> int | None:
        """The number of its candidate; None for a control or a teacher."""
        return self.group.number if self.group.asked.role == "candidate" else None

    @property
    def params(self) -> Mapping[str, Scalar]:
        """student, teacher, lambda, tau, alpha, fraction and the other searched parameters."""
        return self.group.asked.params[self.place]

    @property
    def values(self) -> Sequence[float]:
        """The trial's value of each objective; empty unless it is complete."""
        return [] if self.group.outcome is None else [values[self.place] for values in self.group.outcome.values]

    @property
    def objective(self) -> float | None:
        """The trial's value of the first objective; None unless it is complete."""
        return self.values[0] if self.values else None

    @property
    def cost(self) -> Mapping[str, float] | None:
        return None if self.end is None else self.end.cost

    @property
    def profile(self) -> Profile | None:
        """The machine and versions that the trial ended on; None if it has not ended."""
        return None if self.end is None else self.end.profile

    @property
    def profiles(self) -> list[Profile]:
        """Every profile that trained the trial, in order."""
        if self.end is None:
            return []
        earlier = [found.profile for found in self.end.earlier_profiles]
        return [*earlier, *([self.end.profile] if self.end.profile is not None else [])]

    @property
    def error(self) -> str | None:
        return self.group.error

    def figure(self, metric: MetricSpec) -> float | None:
        """Return the trial's value of a metric, or None. For an objective it is the value that the search received."""
        if self.values and metric in self.objectives:
            return self.values[self.objectives.index(metric)]
        return metric.value_of(self.stages, self.cost or {})

    def answered(self, metric: MetricSpec) -> str:
        """Return how each video was answered in a metric; empty if that is not recorded."""
        return self.outcomes.get(metric.stage, {}).get(metric.split, {}).get(metric.column, "")


@dataclass(frozen=True)
class SweepTrials:
    """A sweep's history with the records of its trials."""

    history: SweepHistory
    trials: Sequence[TrialRecord]
    """Trials of controls and candidates: by block, controls first, then by number and seed."""
    refits: Sequence[TrialRecord] | None
    """Trials of the refits of controls and of the candidates that the search still chooses; None if the sweep file has
    no `refit: true`."""
    teachers: Sequence[TrialRecord] = ()
    """The teachers, which have epochs and stages of their own."""
    videos: Videos = field(default_factory=dict)
    """Block → split → number of evaluated videos, if known."""

    @property
    def every(self) -> list[TrialRecord]:
        """The trials and refits, without teachers."""
        return [*self.trials, *(self.refits or ())]


def sweep_trials(store: StoreFiles, history: SweepHistory) -> SweepTrials:
    """Return the history with its trials' records. A damaged record counts as missing, and a note names it."""
    trials = _records(store, list(history.in_order()), history.objectives)
    again = [refit for block in history.blocks for refit in history.chosen_refits(block)]
    tested = [objective.at(split="test") for objective in history.objectives]
    teachers = _records(store, list(history.teachers.teachers.values()), ())
    refits = _records(store, again, tested) if history.record.refit else None
    return SweepTrials(history, trials, refits, teachers, videos_of(store, history))


def baseline_in(metric: MetricSpec, trials: Sequence[TrialRecord]) -> float | None:
    """Return the majority baseline of a metric from the first trial that records it; None if none does."""
    name = metric.baseline
    if name is None:
        return None
    splits = (splits.get(metric.split, {}) for trial in trials for splits in trial.stages.values())
    return next((figures[name] for figures in splits if name in figures), None)


def trained_keys(store: StoreFiles, name: str) -> list[str]:
    """Return the keys of all trials of the sweep `name` that have an epoch: teachers, controls, candidates, refits and
    fine-tunings. If `name` is not a sweep, return the key of the only trial whose key begins with it.

    Raises StoreError if no trial's key begins with it, or several do.
    """
    if is_name(name) and store.sweep(name).fetch().sweep.exists():
        groups = read_history(store, name).groups.values()
        keys = dict.fromkeys(key for group in groups for key in group.asked.every_key)
        store.fetch_trials(keys)
        return [key for key in keys if store.trial(key).sound_rows()]
    found = [files.key for files in store.trials() if files.key.startswith(name)]
    if len(found) != 1:
        what = f"holds no sweep {quoted(name)}, and {len(found) or 'no'} trials whose keys begin with it"
        what += did_you_mean(name, store.sweeps())
        raise StoreError([Problem(str(store.root), what)])
    return found


def _records(store: StoreFiles, groups: list[GroupHistory], objectives: Sequence[MetricSpec]) -> list[TrialRecord]:
    store.fetch_trials(key for group in groups for key in group.asked.every_key)
    return [_record(store, group, i, objectives) for group in groups for i in range(len(group.keys))]


def _record(store: StoreFiles, group: GroupHistory, i: int, objectives: Sequence[MetricSpec]) -> TrialRecord:
    files = store.trial(group.keys[i])
    rows, end = epoch_rows(files), trial_end(files)
    stage = None if group.outcome is None else group.outcome.stage
    if stage is not None:
        # Another sweep may have trained the trial further; in this sweep it ended at this stage.
        last = next((row.epoch for row in rows if row.stage == stage), 0)  # 0: its row is lost
        rows, end = [row for row in rows if row.epoch <= last], None
    state = group.state
    if group.outcome is None:
        state = "running" if rows or files.config.exists() else "pending"
    epochs = rows[-1].epoch if rows else 0
    weights = next((row.weights_sha256 for row in reversed(rows) if row.stage is not None), None)
    if group.asked.finetuned and state not in UNTUNED:
        rows = rows + epoch_rows(store.trial(group.asked.finetuned[i]))
    stages = {row.stage: row.evaluation for row in rows if row.stage is not None and row.evaluation is not None}
    answers = {row.stage: row.per_video for row in rows if row.stage is not None and row.per_video is not None}
    seconds = sum(row.seconds for row in rows)
    dated = [row for row in rows if row.at > 0]
    span = (min(row.at - row.seconds for row in dated), max(row.at for row in dated)) if dated else None
    weights = weights if end is None else end.weights_sha256
    return TrialRecord(group, i, state, epochs, stages, seconds, weights, objectives, end, span, answers)


def epoch_rows(files: TrialFiles) -> list[EpochRow]:
    """Return a trial's epochs so far, in order. A damaged row is skipped, and a note names it."""
    return list(readable(epoch_row, files.sound_rows(), files.epochs))


def trial_end(files: TrialFiles) -> TrialEnd | None:
    """Return the result of a complete trial; None if it is not complete or its result is damaged."""
    result = files.sound_result()
    return None if result is None else passed_over(lambda: parsed(TrialEnd, result, files.result_file), None)
