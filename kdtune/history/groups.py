"""The state of a group of trials, and of a block of groups. Only SweepHistory writes to both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from kdtune.config.space import Scalar
from kdtune.history.events import Asked, Kind, Outcome
from kdtune.history.front import Front
from kdtune.history.gains import Family, Gain, paired_gain
from kdtune.history.metric import MetricSpec

State = Literal["pending", "running", "complete", "pruned", "failed"]
#: How a group can end.
ENDED: tuple[State, ...] = ("complete", "pruned", "failed")
STATES: tuple[State, ...] = (*ENDED, "running", "pending")


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


@dataclass
class GroupHistory:
    """A group of the sweep: a candidate with all its seeds, one control with one seed, a teacher, or a refit."""

    asked: Asked
    epochs: int
    """Epochs of each trial, with fine-tuning."""
    state: State = "pending"
    """`running` once it has begun to train, even while no driver runs: the next driver resumes it."""
    outcome: Outcome | None = None
    """How the group ended; None until then."""
    cached: bool = False
    """Whether the last run of the sweep found the group's end in the store."""
    was_found: bool = False
    """Whether the sweep found the group's end in the store instead of training the group."""
    done: dict[str, int] = field(default_factory=dict)
    """While it runs: key → newest epoch of that trial."""
    newest: str = ""
    """The key of the trial that ended an epoch last."""
    reached: dict[str, dict[str, float]] = field(default_factory=dict)
    """While it runs: stage or evaluated epoch → key → value of `shown`, in order of arrival."""
    shown: MetricSpec | None = None
    """The metric of `reached`."""

    @property
    def name(self) -> str:
        return self.asked.group

    @property
    def kind(self) -> Kind:
        return self.asked.kind

    @property
    def number(self) -> int:
        """The candidate's number, or the control's place in the sweep file; 0 for a teacher."""
        return self.asked.number or 0

    @property
    def seeds(self) -> Sequence[int]:
        return self.asked.seeds

    @property
    def keys(self) -> Sequence[str]:
        """Keys of the trials, one per seed, without fine-tunings."""
        return self.asked.keys

    @property
    def params(self) -> Mapping[str, Scalar]:
        """Parameters of the first seed's trial, for tables."""
        return self.asked.params[0]

    @property
    def error(self) -> str | None:
        return None if self.outcome is None else self.outcome.error

    def values(self, objective: int = 0) -> dict[int, float]:
        """Return seed → value of an objective, by its place in the sweep file; empty unless the group is complete."""
        if self.outcome is None or len(self.outcome.values) <= objective:
            return {}
        return dict(zip(self.seeds, self.outcome.values[objective], strict=False))

    def objective(self, objective: int = 0) -> float | None:
        """Return the mean of an objective over the seeds; None unless the group is complete."""
        values = self.values(objective)
        return fmean(values.values()) if values else None

    def trial_name(self, key: str) -> str:
        """Return the group's name and, if it has several seeds, the seed of the trial or fine-tuning `key`."""
        return self.name + (f" seed {self.seeds[self.place(key)]}" if len(self.seeds) > 1 else "")

    def place(self, key: str) -> int:
        """Return the index of a trial, or of its fine-tuning, among the seeds."""
        return (self.asked.finetuned if key in self.asked.finetuned else self.keys).index(key)

    def epoch(self, i: int) -> int:
        """Return the number of epochs that the i-th trial and its fine-tuning have ended."""
        return sum(self.done.get(keys[i], 0) for keys in (self.keys, self.asked.finetuned) if keys)


def joint_state(groups: Sequence[GroupHistory]) -> State:
    """Return the state that groups such as a control's seeds share, else `failed` if one failed, else `running`."""
    states = {group.state for group in groups}
    return states.pop() if len(states) == 1 else "failed" if "failed" in states else "running"


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
        paired_gain for `comparisons` and `videos`.
        """
        if self.is_control_itself(group):
            return None
        base = self.control_values(refit=group.kind == "refit")
        return paired_gain(self.metric, group.values(self.place), base, Family(comparisons), videos)

    def is_control_itself(self, group: GroupHistory) -> bool:
        """Return whether all trials of the group are the first control's, as for a candidate without a teacher."""
        return set(group.keys) <= {key for own in self.first_control(group.kind == "refit") for key in own.keys}

    # ---- progress ----------------------------------------------------------------------------------------------------

    @property
    def length(self) -> float:
        """Mean epochs per trial of the ended candidates; the full number while no candidate has ended."""
        return self.lengths.value or self.epochs

    @property
    def waiting(self) -> float:
        """Expected epochs of all trials that have not begun."""
        candidates = self.unasked + self.counts["candidate", "pending"]
        others = sum(self.counts[kind, "pending"] for kind in ("control", "teacher", "refit"))
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
