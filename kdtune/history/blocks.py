"""The state of a block of groups. Only FoldedEvents writes to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from kdtune.history.events import Kind
from kdtune.history.front import Front
from kdtune.history.gains import Family, Gain, paired_gain
from kdtune.history.groups import ENDED, GroupHistory, State
from kdtune.history.metric import MetricSpec
from kdtune.history.race import RaceHistory


@dataclass
class Mean:
    """The mean of numbers that are added and removed; None while there are none."""

    total: float = 0.0
    count: int = 0

    def add(self, number: float, times: int = 1) -> None:
        """Add a number, or remove it with `times` −1."""
        self.total, self.count = self.total + times * number, self.count + times

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


class BlockHistory:
    """The controls, candidates and refits of a block. Candidates are compared only within their block."""

    def __init__(
        self, label: str, size: int, objectives: Sequence[MetricSpec], metric: MetricSpec, epochs: int
    ) -> None:
        self.label, self.objectives, self.metric = label, objectives, metric
        self.place = objectives.index(metric)
        """Index of `metric` among the objectives."""
        self.size = size
        """Number of candidates that the block will have, including those not yet asked for."""
        self.controls: dict[int, dict[int, GroupHistory]] = {}
        """The control's place in the sweep file → seed → group. Gains are over the first control."""
        self.candidates: dict[int, GroupHistory] = {}
        """Number → candidate."""
        self.refits: dict[str, GroupHistory] = {}
        """The name of the refitted group → its refit."""
        self.teachers: dict[str, GroupHistory] = {}
        """Name → teacher; only in the block of teachers."""
        self.further: dict[str, list[GroupHistory]] = {}
        """The name of a candidate → its further seeds."""
        self.race: RaceHistory | None = None
        """The race, if the sweep file has one."""
        self.counts: Counter[tuple[Kind, State]] = Counter()
        """(kind, state) → number of groups asked for."""
        self.front = Front([objective.mode for objective in objectives])
        self.pace = Mean()
        """Seconds per epoch."""
        self.lengths = Mean()
        """Epochs per trial of the ended candidates."""
        self.epochs = epochs
        """Epochs of a trial that is not pruned, from the newest group."""
        self.seeds = 1
        """Trials per candidate."""

    def count(self, *states: State) -> int:
        """Return the number of groups in these states; candidates not yet asked for are pending."""
        asked = sum(number for (_, state), number in self.counts.items() if state in states)
        return asked + (self.unasked if "pending" in states else 0)

    @property
    def redrawn(self) -> Counter[str]:
        """Bound of the constraints → number of draws that broke it, which the sampler then drew again."""
        return sum((Counter(group.asked.redrawn) for group in self.candidates.values()), Counter())

    @property
    def unasked(self) -> int:
        """Number of candidates not yet asked for."""
        return self.size - len(self.candidates)

    @property
    def best(self) -> list[GroupHistory]:
        """The complete candidate with the best objective (the lower number wins a tie); with several objectives the
        Pareto set, by number. Empty while no candidate is complete."""
        numbers = self.front.numbers()
        return [self.candidates[number] for number in (numbers if len(self.objectives) > 1 else numbers[:1])]

    @property
    def leader(self) -> GroupHistory | None:
        """The candidate of `best` with the best value of `metric`."""
        return max(self.best, key=lambda group: self.metric.sign * (group.objective(self.place) or 0.0), default=None)

    def refit(self, group: GroupHistory) -> GroupHistory | None:
        """Return the refit of `group`, or None if the sweep has not asked for one."""
        return self.refits.get(group.name)

    def first_control(self, refit: bool = False) -> list[GroupHistory]:
        """Return the groups of the first control, one per seed, or with `refit` their refits."""
        groups = list(self.controls.get(0, {}).values())
        return [again for group in groups if (again := self.refit(group)) is not None] if refit else groups

    def control_values(self, objective: int | None = None, refit: bool = False) -> dict[int, float]:
        """Return seed → value of the first control's complete groups, or with `refit` of their refits."""
        place = self.place if objective is None else objective
        return {seed: value for group in self.first_control(refit) for seed, value in group.values(place).items()}

    def gain(self, group: GroupHistory, comparisons: int = 1, videos: int | None = None) -> Gain | None:
        """Return the gain of a candidate (or of a refit, over the control's refits) in `metric`, paired by seed.

        Return None while no seed is complete in both, and for a candidate that is the control's own trial. See
        paired_gain for `comparisons` and `videos`; a race has comparisons of its own, which cover all its looks.
        """
        if self.is_control_itself(group):
            return None
        again = group.kind == "refit"
        values, base, family = group.values(self.place), self.control_values(refit=again), Family(comparisons)
        if self.race is not None and not again:
            family = self.race.family(len(values.keys() & base.keys()))
        if self.place > 0:  # there are outcomes of the first objective alone
            return paired_gain(self.metric, values, base, family, videos)
        control = {
            seed: own for one in self.first_control(again) for seed, own in one.scores(self.metric.metric).items()
        }
        return paired_gain(self.metric, values, base, family, videos, group.scores(self.metric.metric), control)

    def differences(self, group: GroupHistory) -> dict[int, float]:
        """Return seed → the group's value in `metric` minus the control's, signed so that more is better.

        These are what `gain` is the mean of, without the work of its interval; empty where `gain` is None.
        """
        if self.is_control_itself(group):
            return {}
        base = self.control_values(refit=group.kind == "refit")
        values = group.values(self.place).items()
        return {seed: self.metric.sign * (value - base[seed]) for seed, value in values if seed in base}

    def is_control_itself(self, group: GroupHistory) -> bool:
        """Return whether all trials of the group are the first control's, as for a candidate without a teacher."""
        return set(group.keys) <= {key for own in self.first_control(group.kind == "refit") for key in own.keys}

    def rank(self, group: GroupHistory) -> None:
        """Place a candidate in the front, or remove it if it is not complete or not in the race any more."""
        self.front.remove(group.number)
        contenders = None if self.race is None else self.race.contenders
        values = [group.objective(i) for i in range(len(self.objectives))]
        if (contenders is None or group.number in contenders) and None not in values:
            self.front.add(group.number, [value for value in values if value is not None])

    def rank_all(self) -> None:
        """Rank the candidates again after a change of the race, and note which of them it has dropped."""
        dropped = {} if self.race is None else self.race.dropped
        for candidate in self.candidates.values():
            for part in candidate.every_part:
                part.dropped = dropped.get(candidate.number)
            self.rank(candidate)

    @property
    def further_groups(self) -> list[GroupHistory]:
        """The further seeds of all candidates."""
        return [group for groups in self.further.values() for group in groups]

    @property
    def trainings(self) -> int:
        """Number of trials of the controls and candidates that have ended, with their further seeds."""
        controls = [group for by_seed in self.controls.values() for group in by_seed.values()]
        candidates = [part for group in self.candidates.values() for part in group.every_part]
        trained = (group for group in (*controls, *candidates) if group.state in ENDED and group.state != "infeasible")
        return sum(len(group.keys) for group in trained)

    # ---- progress ----------------------------------------------------------------------------------------------------

    @property
    def length(self) -> float:
        """Mean epochs per trial of the ended candidates; the full number while no candidate has ended."""
        return self.lengths.value or self.epochs

    @property
    def waiting(self) -> float:
        """Expected epochs of all trials that have not begun."""
        candidates = self.unasked + self.counts["candidate", "pending"]
        others = sum(self.counts[kind, "pending"] for kind in ("control", "further", "teacher", "refit"))
        return candidates * self.seeds * self.length + others * self.epochs

    def left(self, group: GroupHistory) -> float:
        """Return how many epochs a group has left. A candidate is expected to end at `length` or, if it is beyond that,
        at its last epoch."""
        left = 0.0
        for i in range(len(group.keys)):
            done, end = group.epoch(i), float(group.epochs)
            if group.kind == "candidate" and done < self.length:
                end = self.length
            left += max(0.0, end - done)
        return left
