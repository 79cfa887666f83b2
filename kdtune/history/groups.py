"""What is known of a group of trials, and of a block of groups. SweepHistory alone writes to both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from kdtune.config.space import Scalar
from kdtune.history.events import Asked, Kind, Outcome
from kdtune.history.front import Front
from kdtune.history.gains import Gain, paired_gain
from kdtune.history.metric import MetricSpec

State = Literal["pending", "running", "complete", "pruned", "failed"]
#: How a group can end.
ENDED: tuple[State, ...] = ("complete", "pruned", "failed")
STATES: tuple[State, ...] = (*ENDED, "running", "pending")


@dataclass
class Mean:
    """The mean of numbers that come and go; None while there are none."""

    total: float = 0.0
    count: int = 0

    def add(self, number: float, times: int = 1) -> None:
        """Add a number, or with times −1 take it away."""
        self.total, self.count = self.total + times * number, self.count + times

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass
class GroupHistory:
    """A group that was asked for: a candidate with all its seeds, one control with one seed, a teacher, or a refit."""

    asked: Asked
    epochs: int
    """Of each of its trials, fine-tuning included."""
    state: State = "pending"
    """`running` from the first sign of its training on, also while nobody runs the sweep: it then resumes."""
    outcome: Outcome | None = None
    """How it ended; None while it has not."""
    cached: bool = False
    """Whether the last run of the sweep found its end in the store."""
    was_found: bool = False
    """Whether the store had its end when this sweep first came to it: then the sweep did not train it."""
    done: dict[str, int] = field(default_factory=dict)
    """While it runs: key → newest epoch of that trial."""
    newest: str = ""
    """The key of the trial that ended the newest epoch."""
    reached: dict[str, dict[str, float]] = field(default_factory=dict)
    """While it runs: stage, or evaluated epoch, → key → the value of `shown` there, in order of arrival."""
    shown: MetricSpec | None = None
    """The metric of `reached`."""

    @property
    def name(self) -> str:
        return self.asked.group

    @property
    def kind(self) -> Kind:
        return self.asked.kind

    @property
    def role(self) -> Literal["teacher", "control", "candidate"]:
        """Its kind; of a refit, the kind of the group that it trains again."""
        return self.asked.role

    @property
    def number(self) -> int:
        """The candidate's number, or the control's place in the sweep file; 0 for a teacher."""
        return self.asked.number or 0

    @property
    def seeds(self) -> Sequence[int]:
        return self.asked.seeds

    @property
    def keys(self) -> Sequence[str]:
        """Of its trials, one for each seed; without fine-tunings."""
        return self.asked.keys

    @property
    def params(self) -> Mapping[str, Scalar]:
        """Of its first seed's trial, for tables."""
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
        """Return the group's name and, where it has several seeds, the seed of the trial or fine-tuning `key`."""
        return self.name + (f" seed {self.seeds[self.place(key)]}" if len(self.seeds) > 1 else "")

    def place(self, key: str) -> int:
        """Return the place of a trial, or of its fine-tuning, among the seeds."""
        return (self.asked.finetuned if key in self.asked.finetuned else self.keys).index(key)

    def epoch(self, i: int) -> int:
        """Return how many epochs the i-th trial has done, its fine-tuning's counted on."""
        return sum(self.done.get(keys[i], 0) for keys in (self.keys, self.asked.finetuned) if keys)


def joint_state(groups: Sequence[GroupHistory]) -> State:
    """Return the state of groups that are looked at as one, such as a control's seeds; `running` while any is open."""
    states = {group.state for group in groups}
    return states.pop() if len(states) == 1 else "failed" if "failed" in states else "running"


class BlockHistory:
    """The controls, candidates and refits of a block. Candidates are compared with those of their own block alone."""

    def __init__(
        self, label: str, size: int, objectives: Sequence[MetricSpec], metric: MetricSpec, epochs: int
    ) -> None:
        self.label, self.objectives, self.metric = label, objectives, metric
        self.place = objectives.index(metric)
        """Of `metric` among the objectives."""
        self.size = size
        """How many candidates the block will have, asked or not."""
        self.controls: dict[int, dict[int, GroupHistory]] = {}
        """The control's place in the sweep file → seed → group. Gains are over the first."""
        self.candidates: dict[int, GroupHistory] = {}
        """By number."""
        self.refits: dict[str, GroupHistory] = {}
        """The name of the group that is trained again → its refit."""
        self.counts: Counter[tuple[Kind, State]] = Counter()
        """(kind, state) → groups that were asked."""
        self.front = Front([objective.mode for objective in objectives])
        self.pace = Mean()
        """Seconds of an epoch."""
        self.lengths = Mean()
        """Epochs of a trial of an ended candidate."""
        self.epochs = epochs
        """Of a trial that nothing stops, as the newest group says."""
        self.seeds = 1
        """Trials of a candidate."""

    def count(self, *states: State) -> int:
        """Return how many groups are in these states; candidates that are still to be asked are pending."""
        asked = sum(number for (_, state), number in self.counts.items() if state in states)
        return asked + (self.unasked if "pending" in states else 0)

    @property
    def unasked(self) -> int:
        """How many candidates are still to be asked."""
        return self.size - len(self.candidates)

    @property
    def best(self) -> list[GroupHistory]:
        """The complete candidate with the best objective, of which the lower number wins a tie; with several objectives
        the Pareto set, by number. Empty while no candidate is complete."""
        numbers = self.front.numbers()
        return [self.candidates[number] for number in (numbers if len(self.objectives) > 1 else numbers[:1])]

    @property
    def leader(self) -> GroupHistory | None:
        """Of `best` the candidate with the best value of `metric`."""
        return max(self.best, key=lambda group: self.metric.sign * (group.objective(self.place) or 0.0), default=None)

    def refit(self, group: GroupHistory) -> GroupHistory | None:
        """Return what trains `group` again on the whole training list, or None while nothing does."""
        return self.refits.get(group.name)

    def control_values(self, objective: int | None = None, control: int = 0, refit: bool = False) -> dict[int, float]:
        """Return seed → value of a control that is complete there; of its refits with `refit`."""
        place = self.place if objective is None else objective
        groups: list[GroupHistory | None] = list(self.controls.get(control, {}).values())
        if refit:
            groups = [self.refit(group) for group in groups if group is not None]
        return {seed: value for group in groups if group is not None for seed, value in group.values(place).items()}

    def gain(self, group: GroupHistory, comparisons: int = 1, videos: int | None = None) -> Gain | None:
        """Return the gain of a candidate (or of a refit, over the control's refits) in `metric`, paired by seed.

        None while no seed is complete of both, and for a candidate that is the control's own trial. For `comparisons`
        and `videos` see paired_gain.
        """
        if self.is_control_itself(group):
            return None
        base = self.control_values(refit=group.kind == "refit")
        return paired_gain(self.metric, group.values(self.place), base, comparisons, videos)

    def is_control_itself(self, group: GroupHistory) -> bool:
        """Return whether every trial of the group is one of the first control's: a candidate may have no teacher."""
        controls = [*self.controls.get(0, {}).values()]
        if group.kind == "refit":
            controls = [refit for control in controls if (refit := self.refit(control)) is not None]
        return set(group.keys) <= {key for control in controls for key in control.keys}

    # ---- how far it is -----------------------------------------------------------------------------------------------

    @property
    def length(self) -> float:
        """Epochs of a candidate's trial as pruning lets them be; all of them while no candidate has ended."""
        return self.lengths.value or self.epochs

    @property
    def waiting(self) -> float:
        """Epochs of all trials that have not begun."""
        candidates = self.unasked + self.counts["candidate", "pending"]
        others = sum(self.counts[kind, "pending"] for kind in ("control", "teacher", "refit"))
        return candidates * self.seeds * self.length + others * self.epochs

    def left(self, group: GroupHistory) -> float:
        """Return how many epochs a group of the block has left: to where candidates end on average or, beyond that, to
        the very end."""
        left = 0.0
        for i in range(len(group.keys)):
            done, end = group.epoch(i), float(group.epochs)
            if group.kind == "candidate" and done < self.length:
                end = self.length
            left += max(0.0, end - done)
        return left
