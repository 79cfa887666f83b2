"""A sweep as a report shows it: its history, with what the store holds of each trial, block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from kdtune.config.space import Scalar, value_text
from kdtune.history.gains import Gain, paired_gain
from kdtune.history.groups import BlockHistory, State, joint_state
from kdtune.history.metric import MetricSpec
from kdtune.history.sweep import SweepHistory
from kdtune.history.trials import SweepTrials, TrialRecord

#: Of the short names of parameters, for heads and axes.
SIGNS = {"lambda": "λ", "tau": "τ", "alpha": "α"}


def label(parameter: str) -> str:
    """Return what a parameter is called: λ, τ and α by their signs, others by their names."""
    return SIGNS.get(parameter, parameter)


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
        return joint_state([trial.group for trial in self.trials])

    @property
    def last_stage(self) -> str:
        """The stage at which it was pruned."""
        outcome = self.trials[0].group.outcome
        return "" if outcome is None else outcome.stage or ""

    def values(self, metric: MetricSpec) -> dict[int, float]:
        """Return seed → value, for the trials that have one."""
        found = {trial.seed: trial.figure(metric) for trial in self.trials}
        return {seed: value for seed, value in found.items() if value is not None}

    def finals(self, metric: MetricSpec) -> dict[int, float]:
        """Return the same of complete trials alone."""
        complete = [trial for trial in self.trials if trial.group.state == "complete"]
        return Entry(self.name, complete).values(metric)

    def text(self, metric: MetricSpec) -> str:
        """Return the mean over the seeds, with their standard deviation (n − 1) where there are several."""
        values = list(self.values(metric).values())
        return metric.text(fmean(values), stdev(values) if len(values) > 1 else None) if values else ""

    def described(self, params: Sequence[str]) -> str:
        """As in `candidate 3 (c3d, λ 0.25, τ 4)`."""
        shown = [f"{label(p)} {value_text(self.params[p])}" for p in params if self.params.get(p) is not None]
        shown = [text.removeprefix("teacher ").removeprefix("student ") for text in shown]
        if self.name == "control":
            return self.name
        name = self.name if self.is_control else f"candidate {self.name}"
        return f"{name} ({', '.join(shown)})" if shown else name


@dataclass(frozen=True)
class Standing:
    """One block. Gains and bests are the history's."""

    history: BlockHistory
    controls: Sequence[Entry]
    """In the file's order; gains are over the first."""
    candidates: Sequence[Entry]
    """By their figure, the best first; then those without one, by how far they came."""
    videos: Mapping[str, int]
    """How many videos each split has, where that is known."""
    gains: Mapping[str, Gain] = field(default_factory=dict)
    """Of complete candidates whose control is complete, by name."""

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
        """Of `best` the entry with the best value of the sweep's metric."""
        leader = self.history.leader
        return next((entry for entry in self.candidates if leader is not None and entry.number == leader.number), None)


@dataclass(frozen=True)
class SweepReport:
    """Everything that a report says of a sweep, before it is put in words."""

    history: SweepHistory
    trials: Sequence[TrialRecord]
    refits: Sequence[TrialRecord] | None
    """Controls and chosen candidates, trained again on the whole training list; None where nothing is to be."""
    standings: Sequence[Standing]

    @property
    def metric(self) -> MetricSpec:
        """What gains are said of."""
        return self.history.metric

    @property
    def metrics(self) -> Sequence[MetricSpec]:
        """Of all objectives."""
        return self.history.objectives

    @property
    def comparisons(self) -> int:
        """How many candidates were held against a control in all blocks; 1 at least."""
        return max(1, self.history.comparisons)

    def refitted(self, standing: Standing) -> tuple[list[Entry], list[Entry]]:
        """Return a block's refits: of its controls, and of the candidates that the search chose."""
        return entries_of([trial for trial in self.refits or [] if trial.block == standing.block])

    @property
    def seeds(self) -> list[int]:
        return list(dict.fromkeys(trial.seed for trial in self.trials))

    @property
    def varied(self) -> list[str]:
        """Parameters that differ between trials; the teacher always."""
        names = dict.fromkeys(name for trial in self.trials for name in trial.params)
        seen = {name: {str(trial.params.get(name)) for trial in self.trials} for name in names}
        return [name for name in names if name == "teacher" or len(seen[name]) > 1]

    def varied_in(self, standing: Standing) -> list[str]:
        """Return the same within one block."""
        entries = [*standing.controls, *standing.candidates]
        given = {name: [entry.params.get(name) for entry in entries] for name in self.varied}
        seen = {name: {str(value) for value in values if value is not None} for name, values in given.items()}
        return [name for name in self.varied if name == "teacher" or len(seen[name]) > 1]

    def chosen_on_test(self, standing: Standing) -> tuple[list[Entry], dict[str, Gain]]:
        """Return a block's chosen candidates, and their gains on the test split.

        The search has not seen that split: only what it has chosen is compared there, in all blocks together. Of a
        sweep that trains the chosen again these are the refits.
        """
        own, metric = standing.history, self.metric.at(split="test")
        comparisons, videos = max(1, sum(len(s.history.best) for s in self.standings)), standing.videos.get("test")
        best, gains = standing.best, dict[str, Gain | None]()
        if self.refits is not None:
            _, best = self.refitted(standing)
            gains = {entry.name: own.gain(entry.trials[0].group, comparisons, videos) for entry in best}
        elif standing.controls:
            base = standing.controls[0].finals(metric)
            compared = [entry for entry in best if not own.is_control_itself(entry.trials[0].group)]
            gains = {e.name: paired_gain(metric, e.finals(metric), base, comparisons, videos) for e in compared}
        return best, {name: gain for name, gain in gains.items() if gain is not None}


def sweep_of(trials: SweepTrials, videos: Mapping[str, Mapping[str, int]]) -> SweepReport:
    """Return a sweep as a report shows it; `videos`: block → split → how many are evaluated, where that is known."""
    history = trials.history
    standings = []
    for block, own in history.blocks.items():
        controls, candidates = entries_of([trial for trial in trials.trials if trial.block == block])
        known = videos.get(block, {})
        found = history.gains(block, known.get(history.metric.split))
        gains = {str(number): gain for number, gain in found.items()}
        candidates.sort(key=lambda entry, own=own: _rank(entry, own))  # type: ignore[misc]
        standings.append(Standing(own, controls, candidates, known, gains))
    return SweepReport(history, trials.trials, trials.refits, standings)


def entries_of(trials: Sequence[TrialRecord]) -> tuple[list[Entry], list[Entry]]:
    """Return the controls, each with its seeds, and the candidates of one block's trials."""
    controls: dict[int, list[TrialRecord]] = {}
    candidates: dict[int, list[TrialRecord]] = {}
    for trial in trials:
        (controls if trial.is_control else candidates).setdefault(trial.group.number, []).append(trial)
    names = {number: "control" if len(controls) == 1 else f"control {number}" for number in controls}
    return (
        [Entry(names[number], found) for number, found in controls.items()],
        [Entry(str(number), found) for number, found in candidates.items()],
    )


def _rank(entry: Entry, block: BlockHistory) -> tuple[bool, float, int, int]:
    value = entry.trials[0].group.objective(block.place)
    return (value is None, -block.metric.sign * (value or 0.0), -entry.trials[0].epochs, entry.number)
