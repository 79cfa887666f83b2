"""What a sweep asked and how it ended, line by line beside the sweep: to check the search, and to go on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdtune.store.files import append_jsonl, set_damaged_lines_aside
from kdtune.store.records import LEDGER_ROW, ledger_rows

Row = dict[str, Any]


class Ledger:
    """The rows of a ledger's file, {"event": "asked" | "ended", "group": its name, …}; the last one of a group counts.

    With `write` False nothing is added to the file: for looking ahead.
    """

    def __init__(self, path: Path, *, write: bool = True) -> None:
        self.path, self.write = path, write
        self._rows = {(row["event"], row["group"]): row for row in self._read()}

    def _read(self) -> list[Row]:
        """The rows that can be read: the search is a function of its file, and asks again what a damaged line asked."""
        if self.write:
            set_damaged_lines_aside(self.path, LEDGER_ROW)
        return ledger_rows(self.path)

    def asked(self, group: str) -> Row | None:
        """What was asked under this name in an earlier run, or None."""
        return self._rows.get(("asked", group))

    def add(self, row: Row) -> None:
        """Keep a row; one that says what is there already is not written again."""
        if self.write and self._rows.get((row["event"], row["group"])) != row:
            append_jsonl(self.path, row)
            self._rows[row["event"], row["group"]] = row
