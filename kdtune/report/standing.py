"""Where a sweep's blocks stand: controls, candidates, and what each candidate gains over the control of its seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from kdtune.config.space import value_text
from kdtune.history.gains import Gain, gain_over
from kdtune.report.measure import SIGNS, Measure
from kdtune.store.records import objectives_of

Row = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A control or a candidate: one trial for each seed, as sweep_results gives them."""

    name: str
    trials: list[Row]

    @property
    def keys(self) -> list[str]:
        return [trial["key"] for trial in self.trials]

    @property
    def params(self) -> Row:
        return self.trials[0]["params"]

    @property
    def is_control(self) -> bool:
        return self.trials[0]["control"]

    @property
    def number(self) -> int | None:
        return self.trials[0]["candidate"]

    @property
    def state(self) -> str:
        """Of all its trials; `running` while any of them is at work."""
        states = {trial["state"] for trial in self.trials}
        return states.pop() if len(states) == 1 else "failed" if "failed" in states else "running"

    @property
    def last_stage(self) -> str:
        """The one it was pruned at."""
        return next(reversed(self.trials[0]["stages"]), "")

    def values(self, measure: Measure, stage: str | None = None, split: str | None = None) -> dict[int, float]:
        """Seed → value, for the trials that have one."""
        found = {trial["seed"]: measure.value_of(trial, stage, split) for trial in self.trials}
        return {seed: value for seed, value in found.items() if value is not None}

    def finals(self, measure: Measure, split: str | None = None) -> dict[int, float]:
        """The same of complete trials alone."""
        complete = [trial for trial in self.trials if trial["state"] == "complete"]
        return Entry(self.name, complete).values(measure, split=split) if complete else {}

    def text(self, measure: Measure, stage: str | None = None, split: str | None = None) -> str:
        """Mean over the seeds, with their standard deviation (n − 1) where there are several."""
        values = list(self.values(measure, stage, split).values())
        if not values:
            return ""
        return measure.text(fmean(values)) + (f" ± {measure.text(stdev(values))}" if len(values) > 1 else "")

    def described(self, params: list[str]) -> str:
        """As in `candidate 3 (c3d, λ 0.25, τ 4)`."""
        shown = [f"{SIGNS.get(p, p)} {value_text(self.params[p])}" for p in params if self.params.get(p) is not None]
        shown = [text.removeprefix("teacher ").removeprefix("student ") for text in shown]
        if self.name == "control":
            return self.name
        name = self.name if self.is_control else f"candidate {self.name}"
        return f"{name} ({', '.join(shown)})" if shown else name


@dataclass(frozen=True)
class Standing:
    """One block. Gains are of the measure that the report speaks of."""

    block: str
    controls: list[Entry]
    """In the file's order; gains are over the first."""
    candidates: list[Entry]
    """By their figure, the best first; then those without one, by how far they came."""
    videos: dict[str, int]
    """How many videos each split has, where that is known."""
    gains: dict[str, Gain] = field(default_factory=dict)
    """Of complete candidates whose control is complete, by name."""
    best: list[Entry] = field(default_factory=list)
    """The best candidate, or the Pareto set of several objectives; empty while none is complete."""

    @property
    def leader(self) -> Entry | None:
        """Of complete candidates the one with the best figure."""
        return self.candidates[0] if self.candidates and self.candidates[0].state == "complete" else None


@dataclass(frozen=True)
class Sweep:
    """Everything that a report says of a sweep, before it is put in words."""

    record: Row
    results: Row
    standings: list[Standing]
    measure: Measure
    """What gains are said of: the first objective that is no cost."""
    comparisons: int
    """Candidates that were held against a control in all blocks, pruned ones included: that they did not come to the
    end was decided by their figures, too."""

    @property
    def trials(self) -> list[Row]:
        return self.results["trials"]

    @property
    def refits(self) -> list[Row] | None:
        """Controls and chosen candidates, trained again on the whole training list; None where nothing is to be."""
        return self.results.get("refits")

    def refitted(self, standing: Standing) -> Standing:
        """A block's refits as a standing of their own, its candidates those that the search chose."""
        trials = [trial for trial in self.refits or [] if trial["block"] == standing.block]
        controls, candidates = entries_of(trials)
        return Standing(standing.block, controls, candidates, standing.videos, {}, candidates)

    @property
    def seeds(self) -> list[int]:
        return list(dict.fromkeys(trial["seed"] for trial in self.trials))

    @property
    def measures(self) -> list[Measure]:
        """Of all objectives."""
        return [Measure.of(objective) for objective in objectives_of(self.record)]

    @property
    def varied(self) -> list[str]:
        """Parameters that differ between trials; the teacher always."""
        names = dict.fromkeys(name for trial in self.trials for name in trial["params"])
        seen = {name: {str(trial["params"].get(name)) for trial in self.trials} for name in names}
        return [name for name in names if name == "teacher" or len(seen[name]) > 1]

    def varied_in(self, standing: Standing) -> list[str]:
        """The same within one block."""
        entries = [*standing.controls, *standing.candidates]
        given = {name: [entry.params.get(name) for entry in entries] for name in self.varied}
        seen = {name: {str(value) for value in values if value is not None} for name, values in given.items()}
        return [name for name in self.varied if name == "teacher" or len(seen[name]) > 1]


def sweep_of(record: Row, results: Row, videos: dict[str, dict[str, int]]) -> Sweep:
    """`results` of sweep_results; `videos`: block → split → how many are evaluated, where that is known."""
    measure = measure_of(record)
    blocks = []
    for block in record["blocks"]:
        trials = [trial for trial in results["trials"] if trial["block"] == block]
        controls, candidates = entries_of(trials)
        candidates.sort(key=lambda entry: _rank(entry, measure))
        best = results["best"].get(block) or []
        keys = [trial["key"] for trial in (best if isinstance(best, list) else [best])]
        found = [entry for entry in candidates if entry.state == "complete" and entry.keys[0] in keys]
        blocks.append(Standing(block, controls, candidates, videos.get(block, {}), {}, found))
    comparisons = sum(
        entry.state in ("complete", "pruned") and not _is_control_itself(entry, standing)
        for standing in blocks
        for entry in standing.candidates
    )
    for standing in blocks:
        standing.gains.update(gains_of(standing, standing.candidates, measure, comparisons))
    return Sweep(record, results, blocks, measure, max(1, comparisons))


def measure_of(record: Row) -> Measure:
    """What a report says gains of: the first objective that is no cost."""
    measures = [Measure.of(objective) for objective in objectives_of(record)]
    return next((measure for measure in measures if not measure.cost), measures[0])


def gains_of(
    standing: Standing, entries: list[Entry], measure: Measure, comparisons: int, split: str | None = None
) -> dict[str, Gain]:
    """Of those of `entries` that are complete and whose control is; none of a candidate that is the control's trial."""
    if not standing.controls:
        return {}
    base = standing.controls[0].finals(measure, split)
    videos = standing.videos.get(split or measure.split) if measure.is_share else None
    gains = {}
    for entry in entries:
        values = entry.finals(measure, split) if entry.state == "complete" else {}
        seeds = [seed for seed in values if seed in base]
        if seeds and not _is_control_itself(entry, standing):
            ours, control = [values[seed] for seed in seeds], [base[seed] for seed in seeds]
            largest = 1.0 if measure.percent else math.inf
            gains[entry.name] = gain_over(ours, control, measure.sign, comparisons, videos, largest)
    return gains


def entries_of(trials: list[Row]) -> tuple[list[Entry], list[Entry]]:
    """The controls, each with its seeds, and the candidates of one block's trials."""
    controls: dict[str, list[Row]] = {}
    candidates: dict[int, list[Row]] = {}
    for trial in trials:
        if trial["control"]:
            controls.setdefault(str(trial["params"]), []).append(trial)
        else:
            candidates.setdefault(trial["candidate"], []).append(trial)
    names = ["control" if len(controls) == 1 else f"control {i}" for i in range(len(controls))]
    return (
        [Entry(name, found) for name, found in zip(names, controls.values(), strict=True)],
        [Entry(str(number), found) for number, found in candidates.items()],
    )


def _rank(entry: Entry, measure: Measure) -> tuple[Any, ...]:
    values = list(entry.finals(measure).values()) if entry.state == "complete" else []
    epochs = entry.trials[0]["epochs"]
    return (not values, -measure.sign * fmean(values) if values else 0.0, -epochs, entry.number)


def _is_control_itself(entry: Entry, standing: Standing) -> bool:
    """A candidate without a teacher can be the very trial of the control."""
    return bool(standing.controls) and set(entry.keys) <= set(standing.controls[0].keys)
