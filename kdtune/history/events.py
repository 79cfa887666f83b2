"""The events of a sweep, frozen and validated. Only kdtune/history/rows.py reads them from records.

    Asked     the sweep asks for a group of trials     a row of the ledger
    Started   a group begins to train                  observed, not recorded
    EpochEnd  a trial ends an epoch                    a row of the trial's epochs.jsonl
    Ended     a group ends                             a row of the ledger
    Known     the search learns from earlier sweeps    a row of the ledger
    Costed    a network's costs are measured           a row of the ledger
    Looked    a race looks at its block's results      a row of the ledger

The trials of a group end together: a group is a candidate with its first seeds, one control with one seed, a further
seed of a candidate in a race, a teacher, or a refit. A row of the ledger is an event as a flat JSON object with the key
"event".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean, stdev
from typing import Literal

from pydantic import FiniteFloat

from kdtune.config.space import Scalar
from kdtune.history.promotion import Promoted
from kdtune.history.race import Looked
from kdtune.names import stays_below
from kdtune.parse import JsonObject

#: `further` is a further seed of a candidate in a race. A refit trains a control or a chosen candidate again, on the
#: whole training list.
Kind = Literal["teacher", "control", "candidate", "further", "refit"]
#: Fields of Asked that its row omits if they are None.
OPTIONAL = ("refits", "extends", "look", "redrawn", "fronts")
#: How a group can end. An infeasible candidate breaks a constraint and is not trained, or ran out of memory.
EndState = Literal["complete", "pruned", "infeasible", "failed"]


@dataclass(frozen=True)
class Refitted:
    """The group that a refit trains again."""

    group: str
    kind: Literal["control", "candidate"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The sweep asks for a group. A second Asked with other content replaces the group and discards its history."""

    group: str
    """Unique in its sweep: `fraction=1.0 · candidate 3`."""
    kind: Kind
    block: str | None
    """None for a teacher."""
    number: int | None
    """The candidate's number, or the control's place in the sweep file; None for a teacher."""
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    """Keys of the trials, one per seed."""
    finetuned: tuple[str, ...] = ()
    """Keys of the fine-tunings that follow, one per seed; empty without fine-tuning."""
    values: Mapping[str, Scalar] = field(default_factory=dict)
    """Values that the search chose, by their names in the sweep file."""
    params: tuple[Mapping[str, Scalar], ...]
    """For each seed: student, teacher, lambda, tau, alpha, fraction and the other searched parameters."""
    thresholds: Mapping[str, FiniteFloat] = field(default_factory=dict)
    """Stage → pruning threshold, which the mean over the seeds must reach."""
    fronts: Mapping[str, tuple[tuple[FiniteFloat, ...], ...]] = field(default_factory=dict)
    """Stage → points that must not dominate the candidate's, signed so that more is better; none with one objective."""
    epochs: int
    """Epochs of each trial, without fine-tuning."""
    refits: Refitted | None = None
    """The group that a refit trains again; None for every other group."""
    extends: str | None = None
    """The candidate's group to which this further seed belongs; None for every other group."""
    redrawn: Mapping[str, int] = field(default_factory=dict)
    """Bound of the constraints → number of the sampler's earlier draws for this candidate that broke it."""
    look: int | None = None
    """The look of the race that asked for this further seed of a candidate or control; None for the first seeds."""

    def __post_init__(self) -> None:
        count = len(self.seeds)
        if count == 0 or len(set(self.seeds)) < count:
            raise ValueError("seeds must be distinct, and there must be at least one")
        if len(self.keys) != count or len(self.params) != count or len(self.finetuned) not in (0, count):
            raise ValueError("keys, params and finetuned must have one entry for each seed")
        if not all(map(stays_below, (*self.keys, *self.finetuned))):
            raise ValueError("a key must name a folder")
        if (self.kind == "refit") != (self.refits is not None):
            raise ValueError("a refit, and no other group, must name the group that it refits")
        if (self.kind == "further") != (self.extends is not None):
            raise ValueError("a further seed, and no other group, must name the candidate that it extends")
        if self.look is None if self.kind == "further" else self.look is not None and self.kind != "control":
            raise ValueError("a further seed of a candidate or control, and no other group, must have a look")
        if (self.kind == "teacher") != (self.block is None) or (self.kind == "teacher") != (self.number is None):
            raise ValueError("every group, except a teacher, must have a block and a number")

    @property
    def every_key(self) -> tuple[str, ...]:
        """Keys of the trials, then those of their fine-tunings."""
        return (*self.keys, *self.finetuned)

    @property
    def role(self) -> Literal["teacher", "control", "candidate"]:
        """The kind of the group; for a refit or a further seed, the kind of the group that it belongs to."""
        if self.kind == "further":
            return "candidate"
        return self.refits.kind if self.refits is not None else self.kind  # type: ignore[return-value]

    def row(self) -> JsonObject:
        """Return the row of the ledger, without the fields that only refits and races have unless they are set."""
        row = {"event": "asked", **asdict(self)}
        return {name: value for name, value in row.items() if value not in (None, {}) or name not in OPTIONAL}


@dataclass(frozen=True)
class Started:
    """A group begins to train, or begins again after a failure."""

    group: str


@dataclass(frozen=True)
class EpochRow:
    """The fields of a row of epochs.jsonl that a history needs; the others are for the trainer."""

    epoch: int
    seconds: FiniteFloat
    at: FiniteFloat = 0.0
    """When the epoch ended: seconds since 1970, by the clock of the machine that trained it."""
    stage: str | None = None
    """The name of the stage that ends with this epoch."""
    evaluation: Mapping[str, Mapping[str, FiniteFloat]] | None = None
    """Split → metric → value, for epochs with an evaluation: stages, and epochs between them if configured."""
    per_video: Mapping[str, Mapping[str, str]] | None = None
    """Split → metric → how each video was answered, for stages (see kdtune.config.metrics.outcomes)."""
    weights_sha256: str | None = None


@dataclass(frozen=True)
class EpochEnd:
    """The trial `key` of a group ends an epoch. A trial that resumes may report the same epoch again."""

    group: str
    key: str
    row: EpochRow


@dataclass(frozen=True)
class Outcome:
    """How a group ended."""

    state: EndState
    values: tuple[tuple[FiniteFloat, ...], ...] = ()
    """For a complete group: one tuple per objective, one value per seed. A refit is measured on test."""
    stages: Mapping[str, FiniteFloat] = field(default_factory=dict)
    """Stage → the first objective's metric, mean over the seeds, up to the stage where the group was pruned."""
    stage: str | None = None
    """The stage where the group was pruned."""
    error: str | None = None
    per_video: tuple[str, ...] = ()
    """One text per seed with a digit per evaluated video: its right answers in the first objective's metric (see
    kdtune.config.metrics.outcomes). Empty if the trials' rows lack them."""
    points: Mapping[str, tuple[FiniteFloat, ...]] = field(default_factory=dict)
    """Stage → the objectives known there: means over seeds, signed so that more is better; none with one objective."""

    def __post_init__(self) -> None:
        if not all(self.values) or (self.values and self.state != "complete"):
            raise ValueError("only a complete group may have values, and it must have one for each seed")
        if (self.stage is not None) != (self.state == "pruned"):
            raise ValueError("a pruned group, and no other, must have the stage where it was pruned")

    @property
    def objectives(self) -> tuple[float, ...]:
        """The mean of each objective over the seeds."""
        return tuple(map(fmean, self.values))

    @property
    def objective(self) -> float | None:
        """The mean of the first objective over the seeds."""
        return fmean(self.values[0]) if self.values else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation (n − 1) of the first objective over the seeds; None for fewer than two."""
        return stdev(self.values[0]) if self.values and len(self.values[0]) > 1 else None


@dataclass(frozen=True)
class Ended:
    """A group ends."""

    group: str
    outcome: Outcome
    cached: bool = False
    """Whether the store already held the group's end when the sweep looked for it."""
    promotion: int = 0
    """Number of times that a candidate had been promoted before."""

    def row(self) -> JsonObject:
        """Return the row of the ledger, without stage values that are not finite."""
        stages = {stage: value for stage, value in self.outcome.stages.items() if math.isfinite(value)}
        row = {"event": "ended", "group": self.group, **asdict(self.outcome), "stages": stages, "cached": self.cached}
        row["promotion"] = self.promotion
        return {name: value for name, value in row.items() if value or name not in ("per_video", "points", "promotion")}


@dataclass(frozen=True, kw_only=True)
class KnownCandidate:
    """A candidate of an earlier sweep from which this sweep's search learns."""

    sweep: str
    """The name of the earlier sweep."""
    block: str
    """The block of this sweep to which it belongs."""
    keys: tuple[str, ...]
    """Keys of the trials, one per seed: those that this sweep would train."""
    values: Mapping[str, Scalar]
    """Values of this sweep's space."""
    outcome: Outcome
    """Complete or pruned, measured by this sweep's objectives."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """The search learns from earlier sweeps before candidate 0. The first record decides, whatever they find later."""

    group: str = "earlier sweeps"
    """Not a group; it makes the row one of the ledger."""
    candidates: tuple[KnownCandidate, ...]
    """In the order in which the samplers are told."""

    def row(self) -> JsonObject:
        """Return the row of the ledger."""
        return {"event": "known", **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Costed:
    """A network's costs are measured before it is trained. The record decides, whatever a later measurement says."""

    group: str
    """Not a group; it names the row."""
    shape: str
    """Digest that networks of equal cost share."""
    costs: Mapping[str, FiniteFloat]
    """Metric → value, for metrics of the sweep's constraints."""

    def row(self) -> JsonObject:
        """Return the row of the ledger."""
        return {"event": "costed", **asdict(self)}


LedgerEvent = Asked | Ended | Known | Costed | Looked | Promoted
Event = Asked | Started | EpochEnd | Ended | Known | Costed | Looked | Promoted
