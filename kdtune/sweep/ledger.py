"""The ledger of a sweep: what was asked and how it ended, one event per line, to check and to resume the search."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kdtune.history.events import Asked, Costed, Ended, Known, LedgerEvent, Outcome
from kdtune.history.promotion import Promoted
from kdtune.history.race import Looked
from kdtune.history.rows import ledger_event, readable
from kdtune.parse import JsonObject
from kdtune.store.files import append_jsonl, read_jsonl, set_damaged_lines_aside
from kdtune.store.records import LEDGER_ROW


class Ledger:
    """The events of a ledger's file. An event that the file already contains is not written again.

    With `write` False nothing is added to the file; `plan` uses this to look ahead.
    """

    def __init__(self, path: Path, *, write: bool = True) -> None:
        self.path, self.write = path, write
        self._asked: dict[str, Asked] = {}
        self._looks: dict[tuple[str, int], Looked] = {}
        self._promoted: dict[tuple[str, int], Promoted] = {}
        self._told: dict[tuple[str, str, int], JsonObject] = {}
        """(event, group, promotion) → the last row in the file that is still valid."""
        self.ended: dict[str, Outcome] = {}
        """Group → its last outcome."""
        self.known: Known | None = None
        """What the search learned from earlier sweeps, if that is recorded."""
        self.costs: dict[str, Mapping[str, float]] = {}
        """Shape of a network → metric → value."""
        if write:
            set_damaged_lines_aside(path, LEDGER_ROW)
        # The search is deterministic and asks again what cannot be read.
        for event in readable(ledger_event, read_jsonl(path, LEDGER_ROW, passing_over=True), path):
            self._take(event)

    def asked(self, group: str) -> Asked | None:
        """Return the group that was last asked under this name, or None."""
        return self._asked.get(group)

    def candidates(self) -> list[Asked]:
        """Return the candidates in the order in which they were first asked."""
        return [asked for asked in self._asked.values() if asked.kind == "candidate"]

    def looked(self, block: str, number: int) -> Looked | None:
        """Return the look of a block's race that was last recorded under this number, or None."""
        return self._looks.get((block, number))

    def regretted(self, block: str, point: int) -> set[str]:
        """Return the groups that are recorded as promoted at a fixed point because `--regret` had trained them."""
        asked = ((self._asked.get(event.group), event) for event in self._promoted.values())
        own = (event for known, event in asked if known is not None and known.block == block)
        return {event.group for event in own if event.regret and event.point == point and event.candidates is None}

    def add(self, event: LedgerEvent) -> None:
        """Append an event, unless the file already contains it."""
        row = event.row()
        if self.write and self._told.get(_place(row)) != row:
            append_jsonl(self.path, row)
            self._take(event)

    def _take(self, event: LedgerEvent) -> None:
        if isinstance(event, Asked):
            if event.group in self._asked and self._asked[event.group] != event:
                # The name now means another group, and SweepHistory drops the events after it: write those again.
                self._told.clear()
                self._promoted.clear()
            self._asked[event.group] = event
        elif isinstance(event, Ended):
            self.ended[event.group] = event.outcome
        elif isinstance(event, Looked):
            if self._looks.get((event.block, event.number)) != event:
                self._untell_after(event)
            self._looks[event.block, event.number] = event
        elif isinstance(event, Costed):
            self.costs[event.shape] = event.costs
        elif isinstance(event, Promoted):
            known = self._promoted.get((event.group, event.promotion))
            if known is not None and known != event:  # SweepHistory drops what followed the other promotion
                self._told = {t: row for t, row in self._told.items() if t[1] != event.group or t[2] < event.promotion}
            self._promoted[event.group, event.promotion] = event
        else:
            self.known = event
        row = event.row()
        self._told[_place(row)] = row

    def _untell_after(self, look: Looked) -> None:
        """Forget the rows that SweepHistory drops when it comes to this look: later looks, and further seeds that this
        look or a later one asked for."""
        later = {other.group for other in self._looks.values() if _follows(other.block, other.number - 1, look)}
        later |= {group for group, asked in self._asked.items() if _follows(asked.block, asked.look, look)}
        self._told = {told: row for told, row in self._told.items() if told[1] not in later}


def _place(row: JsonObject) -> tuple[str, str, int]:
    """Return what a row is of: its event, group and promotion."""
    return row["event"], row["group"], row.get("promotion", 0)


def _follows(block: str | None, after: int | None, look: Looked) -> bool:
    """Return whether what came after look number `after` of a block came after `look`."""
    return block == look.block and after is not None and after >= look.number
