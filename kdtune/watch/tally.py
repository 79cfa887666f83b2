"""What a watched sweep is counted in: its groups, and for each block what they have come to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import fmean

from kdtune.history.front import Front

#: How a group can end.
ENDED = ("complete", "pruned", "failed")


@dataclass
class Mean:
    """Of numbers that come and go; None while there are none."""

    total: float = 0.0
    count: int = 0

    def add(self, number: float, times: int = 1) -> None:
        """Put it in, or with times −1 take it out."""
        self.total, self.count = self.total + times * number, self.count + times

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


class Tally:
    """What the groups of a block have come to, or the teachers, which stand in no block."""

    def __init__(self, candidates: int, modes: list[str], epochs: int | None) -> None:
        self.candidates = candidates
        """All that the block will have, asked or not."""
        self.seeds = 1
        """Trials of one candidate."""
        self.epochs = epochs
        """Of a trial that nothing stops; None where that is not known."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """(kind, state) → groups that were asked."""
        self.front = Front(modes)
        self.controls: dict[str, list[float] | None] = {}
        """The groups of the first control, one a seed → their objectives."""
        self.pace = Mean()
        """Seconds of an epoch."""
        self.lengths = Mean()
        """Epochs of an ended candidate's trials."""

    def count(self, *states: str) -> int:
        """Groups in these states; candidates that are still to be asked are pending."""
        asked = sum(number for (_, state), number in self.counts.items() if state in states)
        return asked + (self.unasked if "pending" in states else 0)

    @property
    def unasked(self) -> int:
        return self.candidates - sum(number for (kind, _), number in self.counts.items() if kind == "candidate")

    @property
    def length(self) -> float:
        """Epochs of a candidate's trial as pruning lets them be; all of them while no candidate has ended."""
        return self.lengths.value or self.epochs or 0

    @property
    def waiting(self) -> float:
        """Epochs of all trials that have not begun."""
        candidates = self.unasked + self.counts["candidate", "pending"]
        others = sum(self.counts[kind, "pending"] for kind in ("control", "teacher", "refit"))
        return candidates * self.seeds * self.length + others * (self.epochs or 0)

    def gain(self, value: float) -> float | None:
        """An objective less the first control's (mean over its seeds), or None while that is not known."""
        known = [values[0] for values in self.controls.values() if values is not None]
        return value - fmean(known) if known and len(known) == len(self.controls) else None


@dataclass
class TrialGroup:
    """A candidate with all its seeds, a control or a teacher."""

    name: str
    kind: str
    number: int | None
    seeds: list[int]
    keys: list[str]
    finetuned: list[str]
    thresholds: dict[str, float]
    epochs: int | None
    """Of each of its trials, fine-tuning included; None where the ledger does not say."""
    tally: Tally
    state: str = "pending"
    end: tuple[object, ...] = ()
    """What it ended with."""
    length: int | None = None
    """How many epochs each of its trials then had."""
    done: dict[str, int] = field(default_factory=dict)
    """Key → its newest epoch."""
    newest: str = ""
    """The key of the newest row."""
    metric: str = ""
    reached: dict[str, dict[str, float]] = field(default_factory=dict)
    """Stage, or epoch that was evaluated beside the stages → key → `metric` there; in the order of arrival."""

    def named(self, key: str) -> str:
        """The group's name and, where it has several, the seed of the trial (or fine-tuning) `key`."""
        return self.name + (f" seed {self.seeds[self.index(key)]}" if len(self.seeds) > 1 else "")

    def index(self, key: str) -> int:
        """The place of a trial, or of its fine-tuning, among the seeds."""
        return (self.finetuned if key in self.finetuned else self.keys).index(key)

    def epoch(self, i: int) -> int:
        """Epochs of the i-th trial that are done, its fine-tuning's counted on."""
        return sum(self.done.get(keys[i], 0) for keys in (self.keys, self.finetuned) if keys)

    @property
    def rest(self) -> float:
        """Epochs that its trials still have: to where candidates of its block end on average, or, beyond that, to the
        very end."""
        rest = 0.0
        for i in range(len(self.keys)):
            done, end = self.epoch(i), float(self.epochs or 0)
            if self.kind == "candidate" and done < self.tally.length:
                end = self.tally.length
            rest += max(0.0, end - done)
        return rest
