"""The ledger of a sweep: what it asked and how that ended, a line an event, to check the search and to resume it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from kdtune.history.events import Asked, LedgerEvent, ledger_event
from kdtune.store.files import append_jsonl, read_jsonl, set_damaged_lines_aside
from kdtune.store.records import LEDGER_ROW
from kdtune.store.seal import passed_over


class Ledger:
    """The events of a ledger's file. An event that the file tells already is not written again.

    With `write` False nothing is added to the file: for looking ahead.
    """

    def __init__(self, path: Path, *, write: bool = True) -> None:
        self.path, self.write = path, write
        self._asked: dict[str, Asked] = {}
        self._told: dict[tuple[str, str], dict[str, Any]] = {}
        """(event, group) → the last row, as far as it still holds for a reader of the file."""
        for event in self._read():
            self._take(event)

    def _read(self) -> list[LedgerEvent]:
        """Return the events that can be read: the search is a function of its file, and asks the others again."""
        if self.write:
            set_damaged_lines_aside(self.path, LEDGER_ROW)
        rows = read_jsonl(self.path, LEDGER_ROW, passing_over=True)
        events = [passed_over(partial(ledger_event, row, self.path), None) for row in rows]
        return [event for event in events if event is not None]

    def asked(self, group: str) -> Asked | None:
        """Return what was last asked under this name, or None."""
        return self._asked.get(group)

    def add(self, event: LedgerEvent) -> None:
        """Append an event, unless the file tells it already."""
        row = event.row()
        if self.write and self._told.get((row["event"], event.group)) != row:
            append_jsonl(self.path, row)
            self._take(event)

    def _take(self, event: LedgerEvent) -> None:
        if isinstance(event, Asked):
            if event.group in self._asked and self._asked[event.group] != event:
                # It is another group now, and SweepHistory forgets what followed from it: that is told anew.
                self._told.clear()
            self._asked[event.group] = event
        row = event.row()
        self._told[row["event"], event.group] = row
