"""Reads a sweep's files while it runs, every line once: its ledger, and the rows of trials that have begun."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdtune.errors import DamageError, Problem
from kdtune.store import Store
from kdtune.store.records import LEDGER_ROW
from kdtune.store.seal import REMEDY, note_damage, opened, passed_over
from kdtune.watch.board import Board

Row = dict[str, Any]

#: At a look, so many groups of a block that ended since the last one are read for what their epochs took: not
#: thousands.
SAMPLE = 4
#: What is read of an epoch's row.
EPOCH_ROW = ("epoch", "seconds")


class Lines:
    """The rows of a JSONL file that have come since the last look."""

    def __init__(self, path: Path, needs: tuple[str, ...]) -> None:
        self.path, self.needs, self._at, self._file = path, needs, 0, 0

    def new(self) -> list[Row]:
        """Whole lines alone: a torn last one comes when it is whole. A file that was replaced begins again."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return []
        except IsADirectoryError:
            note_damage(DamageError([Problem(str(self.path), f"is a folder, where a file should be; {REMEDY}")]))
            return []
        with file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._file or found.st_size < self._at:
                self._file, self._at = found.st_ino, 0
            file.seek(self._at)
            content = file.read()
        whole = content.rfind(b"\n") + 1
        self._at += whole
        return [row for line in content[:whole].split(b"\n") if line and (row := self._row(line)) is not None]

    def _row(self, line: bytes) -> Row | None:
        return passed_over(lambda: opened(line, self.path, needs=self.needs), None)


class Reader:
    """A sweep's files, read for whoever watches. Raises StoreError for an unknown name."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name, self.files = store, name, store.sweep(name).fetch()
        self._version = self._stamp()
        self.sweep: Row = store.sweep_record(name)
        self.ledger = Lines(self.files.folder / self.sweep["ledger"], LEDGER_ROW)
        self._open: dict[str, Row] = {}  # groups that were asked and have not ended
        self._followed: dict[str, dict[str, Lines]] = {}  # those of them that have begun: key → the trial's rows

    @property
    def current(self) -> bool:
        """Is the sweep's record the one that was read? A driver writes it when it starts."""
        return self._stamp() == self._version

    def _stamp(self) -> tuple[int, int]:
        try:
            found = self.files.sweep.stat()
        except FileNotFoundError:
            return (0, 0)
        return (found.st_ino, found.st_mtime_ns)

    def poll(self, take: Callable[[Row], object], epoch: Callable[[str, str, Row], object]) -> None:
        """Hand on what is new since the last look, as Board.take and Board.epoch want it."""
        self.files.fetch()
        rows = self.ledger.new()
        sample = self._sample(rows)
        for row in rows:
            name = row["group"]
            if row["event"] == "asked":
                self._open[name] = row
                self._followed.pop(name, None)  # perhaps by other keys from now on
            elif row["event"] == "ended" and name in self._open:
                if name in sample:
                    self._read(name, epoch)  # before its end is told
                self._followed.pop(name, None)
                del self._open[name]
            take(row)
        for name, group in self._open.items():
            if name not in self._followed and self.store.trial(group["keys"][0]).fetch().config.exists():
                take({"event": "started", "group": name})
                self._follow(name)
            if name in self._followed:
                self._read(name, epoch)

    def _sample(self, rows: list[Row]) -> set[str]:
        """The last of each block that end in `rows`, and what was followed until then."""
        block = {row["group"]: row["block"] for row in (*self._open.values(), *rows) if row["event"] == "asked"}
        last: dict[str | None, deque[str]] = {}
        for row in rows:
            if row["event"] == "ended" and row["group"] in block:
                last.setdefault(block[row["group"]], deque(maxlen=SAMPLE)).append(row["group"])
        return {name for names in last.values() for name in names} | self._followed.keys()

    def _follow(self, name: str) -> dict[str, Lines]:
        keys = [*self._open[name]["keys"], *self._open[name].get("finetuned", [])]
        return self._followed.setdefault(name, {key: Lines(self.store.trial(key).epochs, EPOCH_ROW) for key in keys})

    def _read(self, name: str, epoch: Callable[[str, str, Row], object]) -> None:
        for key, lines in self._follow(name).items():
            self.store.trial(key).fetch()
            for row in lines.new():
                epoch(name, key, row)


def board_of(reader: Reader) -> Board:
    """The sweep as it is now."""
    board = Board(reader.sweep)
    reader.poll(board.take, board.epoch)
    return board
