"""The ledger of a sweep: what was asked and how it ended, one event per line, to check and to resume the search."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kdtune.history.events import Asked, Costed, Ended, Known, LedgerEvent, Outcome
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
        self._told: dict[tuple[str, str], JsonObject] = {}
        """(event, group) → the last row in the file that is still valid."""
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

    def add(self, event: LedgerEvent) -> None:
        """Append an event, unless the file already contains it."""
        row = event.row()
        if self.write and self._told.get((row["event"], event.group)) != row:
            append_jsonl(self.path, row)
            self._take(event)

    def _take(self, event: LedgerEvent) -> None:
        if isinstance(event, Asked):
            if event.group in self._asked and self._asked[event.group] != event:
                # The name now means another group, and SweepHistory drops the events after it: write those again.
                self._told.clear()
            self._asked[event.group] = event
        elif isinstance(event, Ended):
            self.ended[event.group] = event.outcome
        elif isinstance(event, Looked):
            if self._looks.get((event.block, event.number)) != event:
                self._untell_after(event)
            self._looks[event.block, event.number] = event
        elif isinstance(event, Costed):
            self.costs[event.shape] = event.costs
        else:
            self.known = event
        row = event.row()
        self._told[row["event"], event.group] = row

    def _untell_after(self, look: Looked) -> None:
        """Forget the rows that SweepHistory drops when it comes to this look: later looks, and further seeds that this
        look or a later one asked for."""
        later = {other.group for other in self._looks.values() if _follows(other.block, other.number - 1, look)}
        later |= {group for group, asked in self._asked.items() if _follows(asked.block, asked.look, look)}
        self._told = {told: row for told, row in self._told.items() if told[1] not in later}


def _follows(block: str | None, after: int | None, look: Looked) -> bool:
    """Return whether what came after look number `after` of a block came after `look`."""
    return block == look.block and after is not None and after >= look.number
