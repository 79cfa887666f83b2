"""What happens in a sweep, as frozen and validated events. Each is read from a record in one place: here.

    Asked     a group of trials is asked for      a row of the ledger
    Started   a group has begun to train          seen, not written
    EpochEnd  a trial has ended an epoch          a row of the trial's epochs.jsonl
    Ended     a group has ended                   a row of the ledger

A group is what lives and dies together: a candidate with all its seeds, one control with one seed, a teacher, or a
refit. A ledger's row is an event as a flat JSON object with the key "event".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, TypeVar

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from kdtune.config.space import Scalar
from kdtune.errors import DamageError, Problem
from kdtune.names import stays_below
from kdtune.parse import JsonObject, printable
from kdtune.store.seal import REMEDY

#: A refit is a control or a chosen candidate once more, on the whole training list.
Kind = Literal["teacher", "control", "candidate", "refit"]
#: How a group can end.
EndState = Literal["complete", "pruned", "failed"]

Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class Refitted:
    """The group that a refit trains again."""

    group: str
    kind: Literal["control", "candidate"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A sweep asks for a group. Asked again with other content, the group is another one: what was known of it goes."""

    group: str
    """Unique in its sweep: `fraction=1.0 · candidate 3`."""
    kind: Kind
    block: str | None
    """None of a teacher."""
    number: int | None
    """The candidate's number, or the control's place in the file; None of a teacher."""
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    """Keys of its trials, one for each seed."""
    finetuned: tuple[str, ...] = ()
    """Keys of the fine-tunings that follow, one for each seed; empty where the trials have none."""
    values: Mapping[str, Scalar] = field(default_factory=dict)
    """What the search chose, by the sweep file's names."""
    params: tuple[Mapping[str, Scalar], ...]
    """For each seed: student, teacher, lambda, tau, alpha, fraction and what else is searched."""
    thresholds: Mapping[str, FiniteFloat] = field(default_factory=dict)
    """Stage → what the mean over the seeds must reach there."""
    epochs: int
    """Of each of its trials, fine-tuning excluded."""
    refits: Refitted | None = None
    """Of a refit alone."""

    def __post_init__(self) -> None:
        count = len(self.seeds)
        if count == 0 or len(set(self.seeds)) < count:
            raise ValueError("seeds must be different, one at least")
        if len(self.keys) != count or len(self.params) != count or len(self.finetuned) not in (0, count):
            raise ValueError("keys, params and finetuned must have one entry for each seed")
        if not all(map(stays_below, (*self.keys, *self.finetuned))):
            raise ValueError("a key must name a folder")
        if (self.kind == "refit") != (self.refits is not None):
            raise ValueError("a refit, and nothing else, must say what it refits")
        if (self.kind == "teacher") != (self.block is None) or (self.kind == "teacher") != (self.number is None):
            raise ValueError("every group but a teacher must have its block and number")

    @property
    def role(self) -> Literal["teacher", "control", "candidate"]:
        """Its kind; of a refit, the kind of the group that it trains again."""
        return self.refits.kind if self.refits is not None else self.kind  # type: ignore[return-value]

    def row(self) -> JsonObject:
        """Return the row of the ledger."""
        row = {"event": "asked", **asdict(self)}
        return row if self.refits is not None else {name: value for name, value in row.items() if name != "refits"}


@dataclass(frozen=True)
class Started:
    """A group has begun to train, or begins again after a failure."""

    group: str


@dataclass(frozen=True)
class EpochRow:
    """A row of epochs.jsonl, as far as a sweep is read from it; the rest is the trainer's."""

    epoch: int
    seconds: FiniteFloat
    at: FiniteFloat = 0.0
    """When the epoch ended, in seconds since 1970 of the machine that trained it."""
    stage: str | None = None
    """The name of the stage that ends here."""
    evaluation: Mapping[str, Mapping[str, FiniteFloat]] | None = None
    """Split → metric → value, where the trial was evaluated: at its stages, and between them if asked."""
    weights_sha256: str | None = None


@dataclass(frozen=True)
class EpochEnd:
    """The trial `key` of a group has ended an epoch. A trial that resumes may say so of an epoch again."""

    group: str
    key: str
    row: EpochRow


@dataclass(frozen=True)
class Outcome:
    """How a group ended."""

    state: EndState
    values: tuple[tuple[float, ...], ...] = ()
    """Of a complete group: for each objective its value for each seed. A refit's are measured on test."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Stage → the first objective's metric, mean over the seeds; up to the stage where the group was pruned."""
    stage: str | None = None
    """Where it was pruned."""
    error: str | None = None

    @property
    def objectives(self) -> tuple[float, ...]:
        """Each objective, mean over the seeds."""
        return tuple(map(fmean, self.values))

    @property
    def objective(self) -> float | None:
        """The first objective, mean over the seeds."""
        return fmean(self.values[0]) if self.values else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation (n − 1) of the first objective over the seeds, where there are several."""
        return stdev(self.values[0]) if self.values and len(self.values[0]) > 1 else None


@dataclass(frozen=True)
class Ended:
    """A group has ended."""

    group: str
    outcome: Outcome
    cached: bool = False
    """Whether the store had its trials to their end when the sweep looked."""

    def row(self) -> JsonObject:
        """Return the row of the ledger. No record holds a number that is not finite."""
        stages = {stage: value for stage, value in self.outcome.stages.items() if math.isfinite(value)}
        return {"event": "ended", "group": self.group, **asdict(self.outcome), "stages": stages, "cached": self.cached}


LedgerEvent = Asked | Ended
Event = Asked | Started | EpochEnd | Ended


@dataclass(frozen=True)
class _EndedRow:
    """The row of an Ended, to check it by."""

    group: str
    state: EndState
    values: tuple[tuple[FiniteFloat, ...], ...]
    stages: Mapping[str, FiniteFloat]
    stage: str | None
    error: str | None
    cached: bool

    def __post_init__(self) -> None:
        if not all(self.values) or (self.values and self.state != "complete"):
            raise ValueError("a complete group alone has values, for each seed one")
        if (self.stage is not None) != (self.state == "pruned"):
            raise ValueError("a pruned group, and no other, has the stage where it was pruned")


def ledger_event(row: Mapping[str, Any], path: Path) -> LedgerEvent:
    """Return the event that a ledger's row tells of. Raises DamageError, naming `path`, for what is no such row."""
    match row.get("event"):
        case "asked":
            return parsed(Asked, row, path)
        case "ended":
            end = parsed(_EndedRow, row, path)
            outcome = Outcome(end.state, end.values, end.stages, end.stage, end.error)
            return Ended(end.group, outcome, end.cached)
        case _:
            raise DamageError([Problem(str(path), f"holds a row that is no event of a ledger; {REMEDY}")])


def epoch_row(row: Mapping[str, Any], path: Path) -> EpochRow:
    """Return a row of epochs.jsonl. Raises DamageError, naming `path`, for what is no such row."""
    return parsed(EpochRow, row, path)


def parsed(kind: type[Parsed], record: Mapping[str, Any], path: Path) -> Parsed:
    """Return `record` as an object of `kind`. Raises DamageError, naming `path` and the first thing that is wrong."""
    try:
        return _adapter(kind).validate_python(record)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        what = printable(f"{where}: {first['msg']}" if where else first["msg"])
        raise DamageError([Problem(str(path), f"is damaged: {what}; {REMEDY}")]) from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
