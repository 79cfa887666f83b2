"""The race of a block: the looks that it has taken, what they dropped and what they decided.

The event `Looked` is a row of the ledger (see kdtune/history/events.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from pydantic import FiniteFloat

from kdtune.history.gains import Family
from kdtune.history.racing import RaceDecision, RaceRules
from kdtune.parse import JsonObject

#: How a race ends: as its rules say, or `failed` if the control or all candidates lack a seed's value.
Decision = RaceDecision | Literal["failed"]


@dataclass(frozen=True, kw_only=True)
class Looked:
    """A race looks at the results of its block, after all trainings that the look before asked for have ended.

    A look with other content than the known one of its number replaces that one and discards all that followed it.
    """

    block: str
    number: int
    """1 for the look at the first seeds, and so on."""
    comparisons: int
    """Number of candidates of the sweep, in all blocks."""
    control: tuple[FiniteFloat, ...]
    """What it saw: the first control's values of the objective, one per seed from 0 on."""
    candidates: Mapping[int, tuple[FiniteFloat, ...]]
    """What it saw: the same for each candidate that was still in the race, by number."""
    gains: Mapping[int, tuple[FiniteFloat, FiniteFloat | None, FiniteFloat | None]] = field(default_factory=dict)
    """Candidate → its gain over the control with the ends of its interval, in the metric's unit."""
    dropped: Mapping[int, str] = field(default_factory=dict)
    """The candidates that get no further seed → why. Empty if the statistics ended the race."""
    leader: int | None = None
    """The candidate that the block's answer is about; None if the race failed."""
    decision: Decision | None = None
    """How the race ended; None if the candidates that are left and their control get further seeds."""
    reason: str = ""
    """Why a race failed."""

    def __post_init__(self) -> None:
        if self.number < 1 or not {*self.dropped, *self.gains} <= self.candidates.keys():
            raise ValueError("looks are counted from 1, and a look drops candidates that it saw")
        if (self.leader is None) != (self.decision == "failed") or self.leader not in {None, *self.candidates}:
            raise ValueError("a look must name a leader that it saw, unless the race failed")

    @property
    def group(self) -> str:
        """The name of the look in the ledger."""
        return f"{self.block} · look {self.number}"

    @property
    def left(self) -> list[int]:
        """Numbers of the candidates that it did not drop."""
        return [number for number in sorted(self.candidates) if number not in self.dropped]

    @property
    def evidence(self) -> tuple[object, ...]:
        """What the look saw."""
        return self.comparisons, self.control, dict(self.candidates)

    def row(self) -> JsonObject:
        """Return the row of the ledger."""
        return {"event": "looked", "group": self.group, **asdict(self)}


class RaceHistory:
    """The looks of a block's race, in order."""

    def __init__(self, rules: RaceRules, comparisons: int) -> None:
        self.rules, self.comparisons = rules, comparisons
        self.recorded: list[Looked] = []
        """The looks that were last recorded; an earlier run of the sweep may have had another number of candidates."""

    @property
    def looks(self) -> list[Looked]:
        """The looks that were taken with as many candidates as the sweep has now."""
        same = bool(self.recorded) and self.recorded[-1].comparisons == self.comparisons
        return self.recorded if same else []

    @property
    def last(self) -> Looked | None:
        """The newest look; None before the first one."""
        return self.looks[-1] if self.looks else None

    @property
    def decision(self) -> Decision | None:
        """How the race ended; None until then."""
        return self.looks[-1].decision if self.looks else None

    @property
    def ended(self) -> bool:
        return self.decision is not None

    @property
    def seeds(self) -> int:
        """Number of seeds of each candidate that the newest look saw; 0 before the first look."""
        return self.rules.looks[len(self.looks) - 1] if self.looks else 0

    def family(self, seeds: int) -> Family:
        """Return the family of a candidate's interval after so many seeds: that of the newest look that they suffice
        for."""
        return self.rules.family(self.rules.look_at(seeds) or self.rules.first, self.comparisons)

    @property
    def next_seeds(self) -> range:
        """The seeds that the next look needs besides those that the newest one saw."""
        return range(self.seeds, self.rules.looks[len(self.looks)])

    @property
    def dropped(self) -> dict[int, int]:
        """Candidate → the look that dropped it."""
        return {number: look.number for look in self.looks for number in look.dropped}

    @property
    def contenders(self) -> list[int] | None:
        """The candidates of which the block's best is one: those that are left, and in the end the leader. None where
        every candidate may be: before the first look, and if the race failed."""
        if self.last is None or self.last.leader is None:
            return None
        return [self.last.leader] if self.ended else self.last.left

    def known(self, look: Looked) -> bool:
        """Return whether this look is recorded."""
        return look.number <= len(self.recorded) and self.recorded[look.number - 1] == look

    def words(self) -> str:
        """Return the state in words, as in `look 3, 2 of 8 candidates left` or `better after look 3`."""
        if self.last is None:
            return "not begun"
        if self.decision is not None:
            words = f"{self.decision} after look {self.last.number}"
            return words if self.decision != "failed" else f"{words}: {self.last.reason}"
        began = len(self.looks[0].candidates)
        return f"look {self.last.number}, {len(self.last.left)} of {began} candidate{'s' * (began != 1)} left"
