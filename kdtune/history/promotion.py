"""The promotion of a pruned candidate: it is taken up again from its checkpoint, with new thresholds (DESIGN 4.4).

The event `Promoted` is a row of the ledger (see kdtune/history/events.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from pydantic import FiniteFloat

from kdtune.parse import JsonObject


@dataclass(frozen=True, kw_only=True)
class Promoted:
    """A candidate that was pruned at a stage is taken up again. Its next end has the same promotion number."""

    group: str
    """The candidate's group."""
    promotion: int
    """1 for the candidate's first promotion, and so on."""
    stage: str
    """The stage where it had been pruned."""
    point: int
    """The fixed point: the number of the candidate that is asked next; the number of candidates or more at the end."""
    candidates: int | None = None
    """At the end of the search: the number of candidates that the block had; None before."""
    regret: bool = False
    """Whether `report --regret` had trained it to its end; otherwise its value at the stage would now pass."""
    thresholds: Mapping[str, FiniteFloat] = field(default_factory=dict)
    """Later stage → pruning threshold."""

    def row(self) -> JsonObject:
        """Return the row of the ledger."""
        return {"event": "promoted", **asdict(self)}

    def belongs(self, candidates: int) -> bool:
        """Return whether a search of so many candidates has this fixed point."""
        return self.point < candidates if self.candidates is None else self.candidates == candidates
