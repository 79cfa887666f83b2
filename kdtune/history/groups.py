"""The state of a group of trials. Only FoldedEvents writes to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Literal

from kdtune.config.metrics import outcomes, wrong_digits
from kdtune.config.space import Scalar
from kdtune.history.events import Asked, EpochRow, Kind, Outcome
from kdtune.history.metric import MetricSpec
from kdtune.history.promotion import Promoted

State = Literal["pending", "running", "complete", "pruned", "infeasible", "failed"]
#: How a group can end.
ENDED: tuple[State, ...] = ("complete", "pruned", "infeasible", "failed")
STATES: tuple[State, ...] = (*ENDED, "running", "pending")
#: States of trials that are not fine-tuned.
UNTUNED: tuple[State, ...] = ("pruned", "infeasible")


@dataclass
class GroupHistory:
    """A group of the sweep: a candidate with its first seeds, one control with one seed, a further seed of a candidate
    in a race, a teacher, or a refit. The values of a candidate include those of its further seeds."""

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
    """While it runs: stage or evaluated epoch → key → value of the metric in `shown`, in order of arrival."""
    shown: dict[str, MetricSpec] = field(default_factory=dict)
    """While it runs: stage or evaluated epoch → the metric that is displayed of it."""
    further: list[GroupHistory] = field(default_factory=list)
    """Further seeds of a candidate in a race."""
    counted: bool = False
    """For a further seed: whether a look has seen it. Its value then belongs to the candidate's."""
    dropped: int | None = None
    """The look of a race that dropped this candidate, or the candidate of this further seed; None if none did."""
    promotions: list[tuple[Promoted, Outcome]] = field(default_factory=list)
    """The promotions of a candidate that was pruned, each with the end that it had before."""

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
    def parts(self) -> list[GroupHistory]:
        """The group and those of its further seeds that count."""
        return [self, *(group for group in self.further if group.counted)]

    @property
    def every_part(self) -> list[GroupHistory]:
        """The group and all its further seeds, counted or not."""
        return [self, *self.further]

    @property
    def trials(self) -> dict[int, str]:
        """Seed → key of its trial, with those of the further seeds that count."""
        return {seed: key for part in self.parts for seed, key in zip(part.seeds, part.keys, strict=True)}

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Stage → pruning threshold, since the newest promotion."""
        return self.promotions[-1][0].thresholds if self.promotions else self.asked.thresholds

    @property
    def promoted(self) -> str:
        """Where the candidate was pruned before it was promoted, as in `, promoted from early`; empty if it was not."""
        stages = dict.fromkeys(event.stage for event, _ in self.promotions)
        return f", promoted from {', '.join(stages)}" if stages else ""

    @property
    def params(self) -> Mapping[str, Scalar]:
        """Parameters of the first seed's trial, for tables."""
        return self.asked.params[0]

    @property
    def error(self) -> str | None:
        return None if self.outcome is None else self.outcome.error

    def values(self, objective: int = 0) -> dict[int, float]:
        """Return seed → value of an objective, by its place in the sweep file; empty unless the group is complete."""
        if self.state != "complete":
            return {}
        known = [(part.seeds, part.outcome.values) for part in self.parts if part.outcome is not None]
        return {
            seed: value
            for seeds, values in known
            if objective < len(values)
            for seed, value in zip(seeds, values[objective], strict=False)
        }

    def misfit(self, outcome: Outcome, metric: str) -> str | None:
        """Return what of an outcome cannot be this group's; None if it fits. `metric` is the first objective's."""
        count = len(self.seeds)
        if any(len(values) != count for values in outcome.values) or len(outcome.per_video) not in (0, count):
            return "another number of trials than asked for"
        wrong = any(not text or wrong_digits(metric, text) for text in outcome.per_video)
        return f"outcomes of videos that {metric} cannot have" if wrong else None

    def scores(self, metric: str) -> dict[int, tuple[float, ...]]:
        """Return seed → the share of right answers of each evaluated video, in the first objective's `metric`, for the
        seeds whose records hold that."""
        ends = [(part.seeds, part.outcome) for part in self.parts if part.outcome is not None]
        return {
            seed: outcomes(metric, text)
            for seeds, end in ends
            for seed, text in zip(seeds, end.per_video, strict=False)
        }

    def objective(self, objective: int = 0) -> float | None:
        """Return the mean of an objective over the seeds; None unless the group is complete."""
        values = self.values(objective)
        return fmean(values.values()) if values else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation (n − 1) of the first objective over the seeds; None for fewer than two."""
        values = self.values()
        return stdev(values.values()) if len(values) > 1 else None

    def reach(self, key: str, row: EpochRow, metric: MetricSpec) -> None:
        """Note the displayed value in an epoch's row of the trial `key`; `metric` is the sweep's."""
        if (figure := figure_of(row, self.kind, metric)) is None:
            return
        (shown, value), place = figure, place_of(row)
        if self.shown.setdefault(place, shown) != shown:  # an epoch of fine-tuning has a pre-training's number
            self.shown[place], self.reached[place] = shown, {}
        self.reached.setdefault(place, {})[key] = value

    def trial_name(self, key: str) -> str:
        """Return the group's name and, if it has several seeds, the seed of the trial or fine-tuning `key`."""
        return self.name + (f" seed {self.seeds[self.place(key)]}" if len(self.seeds) > 1 else "")

    def place(self, key: str) -> int:
        """Return the index of a trial, or of its fine-tuning, among the seeds."""
        return (self.asked.finetuned if key in self.asked.finetuned else self.keys).index(key)

    def epoch(self, i: int) -> int:
        """Return the number of epochs that the i-th trial and its fine-tuning have ended."""
        return sum(self.done.get(keys[i], 0) for keys in (self.keys, self.asked.finetuned) if keys)


def figure_of(row: EpochRow, kind: Kind, metric: MetricSpec) -> tuple[MetricSpec, float] | None:
    """Return the metric that is displayed for a running group, and its value in an epoch's row. `metric` is the
    sweep's."""
    figures = (row.evaluation or {}).get("test" if kind == "refit" else metric.split, {})
    # Only fine-tuning measures the action head, which k-NN stands for before; a cost is not measured per epoch.
    others = (metric.other(name) for name in ("top1", "knn"))
    shown = next((shown for shown in (metric, *others) if shown.column in figures), metric)
    return (shown, figures[shown.column]) if shown.column in figures else None


def place_of(row: EpochRow) -> str:
    """Return the name of an evaluated row: its stage, or as in `epoch 3`."""
    return row.stage or f"epoch {row.epoch}"


def joint_state(groups: Sequence[GroupHistory]) -> State:
    """Return the state that groups such as a control's seeds share, else `failed` if one failed, else `running`."""
    states = {group.state for group in groups}
    return states.pop() if len(states) == 1 else "failed" if "failed" in states else "running"
