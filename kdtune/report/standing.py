"""The data of a report: a sweep's history with the records of its trials, block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kdtune.config.space import Scalar
from kdtune.history.blocks import BlockHistory
from kdtune.history.gains import Family, Gain, paired_gain, video_scores
from kdtune.history.groups import State, joint_state
from kdtune.history.metric import MetricSpec
from kdtune.history.sweep import SweepHistory
from kdtune.history.trials import SweepTrials, TrialRecord
from kdtune.history.videos import Videos
from kdtune.history.words.names import described, varied
from kdtune.history.words.verdicts import chosen


@dataclass(frozen=True)
class Entry:
    """A control with all its seeds, or a candidate."""

    name: str
    trials: Sequence[TrialRecord]
    """One for each seed."""

    @property
    def keys(self) -> list[str]:
        return [trial.key for trial in self.trials]

    @property
    def params(self) -> Mapping[str, Scalar]:
        return self.trials[0].params

    @property
    def is_control(self) -> bool:
        return self.trials[0].is_control

    @property
    def number(self) -> int:
        return self.trials[0].group.number

    @property
    def state(self) -> State:
        return joint_state([trial.group for trial in self.trials if trial.group.kind != "further"])

    @property
    def last_stage(self) -> str:
        """The stage where it was pruned; empty if it was not."""
        outcome = self.trials[0].group.outcome
        return "" if outcome is None else outcome.stage or ""

    def values(self, metric: MetricSpec) -> dict[int, float]:
        """Return seed → value, for the trials that have one."""
        found = {trial.seed: trial.figure(metric) for trial in self.trials}
        return {seed: value for seed, value in found.items() if value is not None}

    def finals(self, metric: MetricSpec) -> dict[int, float]:
        """Return seed → value, for complete trials only."""
        complete = [trial for trial in self.trials if trial.group.state == "complete"]
        return Entry(self.name, complete).values(metric)

    def gain(self, control: Entry, metric: MetricSpec, family: Family, videos: int | None = None) -> Gain | None:
        """Return the gain over `control` of the complete trials, paired by seed; see paired_gain for `videos`."""
        ours, theirs = (
            video_scores(metric, {trial.seed: trial.answered(metric) for trial in entry.trials})
            for entry in (self, control)
        )
        return paired_gain(metric, self.finals(metric), control.finals(metric), family, videos, ours, theirs)

    def text(self, metric: MetricSpec) -> str:
        """Return the mean over the seeds, with the standard deviation (n − 1) if there are several."""
        return metric.mean_text(self.values(metric).values())

    def described(self, params: Sequence[str]) -> str:
        """Return the name with the values of `params`, as in `candidate 3 (c3d, λ 0.25, τ 4)`."""
        if self.name == "control":
            return self.name
        return described(self.name if self.is_control else f"candidate {self.name}", self.params, params)


@dataclass(frozen=True)
class Standing:
    """One block of a report. The history computes gains and best candidates."""

    history: BlockHistory
    controls: Sequence[Entry]
    """In the file's order; gains are over the first."""
    candidates: Sequence[Entry]
    """Best value first; then candidates without a value, by the epochs they trained."""
    videos: Mapping[str, int]
    """Split → number of evaluated videos, if known."""
    gains: Mapping[str, Gain] = field(default_factory=dict)
    """Name → gain, for complete candidates whose control is complete."""

    @property
    def block(self) -> str:
        return self.history.label

    @property
    def best(self) -> list[Entry]:
        """The best candidate, or the Pareto set of several objectives; empty while none is complete."""
        numbers = [group.number for group in self.history.best]
        return [entry for entry in self.candidates if entry.number in numbers]

    @property
    def leader(self) -> Entry | None:
        """The entry of `best` with the best value of the sweep's metric."""
        leader = self.history.leader
        return next((entry for entry in self.candidates if leader is not None and entry.number == leader.number), None)


@dataclass(frozen=True)
class SweepReport:
    """The data of a sweep's report."""

    history: SweepHistory
    trials: Sequence[TrialRecord]
    refits: Sequence[TrialRecord] | None
    """Controls and chosen candidates, trained again on the whole training list; None without `refit: true`."""
    standings: Sequence[Standing]
    teachers: Sequence[TrialRecord] = ()
    videos: Videos = field(default_factory=dict)
    """Block → split → number of evaluated videos, if known."""

    @property
    def every(self) -> list[TrialRecord]:
        """All trials: those of blocks, their refits, and the teachers."""
        return [*self.trials, *(self.refits or ()), *self.teachers]

    @property
    def metric(self) -> MetricSpec:
        """The metric of gains."""
        return self.history.metric

    @property
    def metrics(self) -> Sequence[MetricSpec]:
        """All objectives."""
        return self.history.objectives

    @property
    def comparisons(self) -> int:
        """Number of candidates that were compared with a control, over all blocks; at least 1."""
        return max(1, self.history.comparisons)

    def refitted(self, standing: Standing) -> tuple[list[Entry], list[Entry]]:
        """Return a block's refits: those of its controls, and those of its chosen candidates."""
        return entries_of([trial for trial in self.refits or [] if trial.block == standing.block])

    @property
    def seeds(self) -> list[int]:
        return list(dict.fromkeys(trial.seed for trial in self.trials))

    def varied_in(self, standing: Standing) -> list[str]:
        """Return the parameters that differ within one block, and always the teacher."""
        return varied(standing.history)

    def chosen_on_test(self, standing: Standing) -> tuple[list[Entry], dict[str, Gain]]:
        """Return a block's chosen candidates, and their gains on the test split.

        The search has not seen that split, so the intervals are corrected only for the chosen candidates of all blocks.
        In a sweep with refits, the refits are returned.
        """
        own, metric = standing.history, self.metric.at(split="test")
        comparisons, videos = chosen(self.history), standing.videos.get("test")
        best, gains = standing.best, dict[str, Gain | None]()
        if self.refits is not None:
            _, best = self.refitted(standing)
            gains = {entry.name: own.gain(entry.trials[0].group, comparisons, videos) for entry in best}
        elif standing.controls:
            base, family = standing.controls[0], Family(comparisons)
            compared = [entry for entry in best if not own.is_control_itself(entry.trials[0].group)]
            gains = {e.name: e.gain(base, metric, family, videos) for e in compared}
        return best, {name: gain for name, gain in gains.items() if gain is not None}


def sweep_of(trials: SweepTrials) -> SweepReport:
    """Return the data of a sweep's report."""
    history = trials.history
    standings = []
    for block, own in history.blocks.items():
        controls, candidates = entries_of([trial for trial in trials.trials if trial.block == block])
        known = trials.videos.get(block, {})
        found = history.gains(block, known.get(history.metric.split))
        gains = {str(number): gain for number, gain in found.items()}
        candidates.sort(key=lambda entry, own=own: _rank(entry, own))  # type: ignore[misc]
        standings.append(Standing(own, controls, candidates, known, gains))
    return SweepReport(history, trials.trials, trials.refits, standings, trials.teachers, trials.videos)


def entries_of(trials: Sequence[TrialRecord]) -> tuple[list[Entry], list[Entry]]:
    """Return the controls and the candidates of one block's trials, each with all its seeds. Further seeds of a race
    belong to a candidate once a look has seen them."""
    controls: dict[int, list[TrialRecord]] = {}
    candidates: dict[int, list[TrialRecord]] = {}
    for trial in (trial for trial in trials if trial.group.kind != "further" or trial.group.counted):
        (controls if trial.is_control else candidates).setdefault(trial.group.number, []).append(trial)
    names = {number: "control" if len(controls) == 1 else f"control {number}" for number in controls}
    return (
        [Entry(names[number], found) for number, found in controls.items()],
        [Entry(str(number), found) for number, found in candidates.items()],
    )


def _rank(entry: Entry, block: BlockHistory) -> tuple[bool, float, int, int]:
    value = entry.trials[0].group.objective(block.place)
    return (value is None, -block.metric.sign * (value or 0.0), -entry.trials[0].epochs, entry.number)
