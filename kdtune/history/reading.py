"""Reads the history of a sweep from the store, at once or event by event while the sweep runs."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from kdtune.errors import DamageError, Problem
from kdtune.history.events import Asked, Ended, EpochEnd, Event, LedgerEvent, Started
from kdtune.history.groups import GroupHistory
from kdtune.history.record import read_record
from kdtune.history.rows import epoch_row, ledger_event, readable
from kdtune.history.sweep import SweepHistory
from kdtune.parse import JsonObject
from kdtune.store import StoreFiles
from kdtune.store.records import LEDGER_ROW
from kdtune.store.seal import REMEDY, note_damage, opened, passed_over

#: Maximum number of newly ended groups per block whose epochs are read to measure the pace.
SAMPLE = 4


def read_history(store: StoreFiles, name: str) -> SweepHistory:
    """Return the history of a sweep from its record, its ledger and the trials that have begun.

    Damaged rows are skipped with a note. Raises StoreError for an unknown name, and DamageError (a StoreError) if the
    record is damaged.
    """
    return HistoryReader(store, name).read()


class Lines:
    """Reads the rows that were added to a JSONL file since the last call."""

    def __init__(self, path: Path, needs: tuple[str, ...]) -> None:
        self.path, self.needs, self._at, self._file = path, needs, 0, 0

    def new(self) -> list[JsonObject]:
        """Return the new rows; a torn last line waits until it is complete. A replaced file is read from its start."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return []
        except IsADirectoryError:
            note_damage(DamageError([Problem(str(self.path), f"is a folder, but must be a file; {REMEDY}")]))
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

    def _row(self, line: bytes) -> JsonObject | None:
        return passed_over(lambda: opened(line, self.path, needs=self.needs), None)


class HistoryReader:
    """Reads the files of a sweep as they grow. Raises StoreError for an unknown name.

    `history` holds what `read` and `poll` have read so far.
    """

    def __init__(self, store: StoreFiles, name: str) -> None:
        self.store, self.name, self.files = store, name, store.sweep(name).fetch()
        self._version = self._stamp()
        self.history = SweepHistory(read_record(store, name))
        self._ledger = Lines(self.files.folder / self.history.record.ledger, LEDGER_ROW)
        self._followed: dict[str, tuple[Asked, dict[str, Lines]]] = {}
        """Open groups that have begun: name → the event Asked, and key → the reader of the trial's rows."""

    @property
    def current(self) -> bool:
        """Whether the sweep's record has not changed since it was read. A driver writes it when it starts."""
        return self._stamp() == self._version

    def _stamp(self) -> tuple[int, int]:
        try:
            found = self.files.sweep.stat()
        except FileNotFoundError:
            return (0, 0)
        return (found.st_ino, found.st_mtime_ns)

    def read(self, begun: bool = True) -> SweepHistory:
        """Read new rows of the ledger and, unless `begun` is False, find open groups that have begun; no epochs."""
        for event in self._ledger_events():
            self.history.apply(event)
        if begun:
            self._start(self.history.apply)
        return self.history

    def poll(self, apply: Callable[[Event], object] | None = None) -> SweepHistory:
        """Read everything that was added since the last call, including epochs of open groups.

        `apply` receives each event instead of `history.apply`, and must pass it on to that.
        """
        apply = self.history.apply if apply is None else apply
        self.files.fetch()
        events = list(self._ledger_events())
        sample = self._sample(events)
        for event in events:
            if isinstance(event, Ended):
                if event.group in sample and event.group in self.history.open:
                    self._read(self.history.open[event.group], apply)  # before its end is applied
                self._followed.pop(event.group, None)
            apply(event)
        self._start(apply)
        for group in list(self.history.open.values()):
            if group.name in self._followed:
                self._read(group, apply)
        return self.history

    def _ledger_events(self) -> Iterator[LedgerEvent]:
        return readable(ledger_event, self._ledger.new(), self._ledger.path)

    def _start(self, apply: Callable[[Event], object]) -> None:
        """Apply Started for each open group that was not known to have begun."""
        for group in list(self.history.open.values()):
            known = self._followed.get(group.name)
            if (known is None or known[0] != group.asked) and self._has_begun(group):
                self._follow(group)
                apply(Started(group.name))

    def _has_begun(self, group: GroupHistory) -> bool:
        files = [self.store.trial(key).fetch() for key in group.keys]
        return any(trial.config.exists() or trial.epochs.exists() for trial in files)

    def _sample(self, events: list[LedgerEvent]) -> set[str]:
        """Return the names of each block's last groups that end in `events`, and of all groups followed so far."""
        asked = [*(group.asked for group in self.history.open.values()), *(e for e in events if isinstance(e, Asked))]
        block = {event.group: event.block for event in asked}
        last: dict[str | None, deque[str]] = {}
        for event in events:
            if isinstance(event, Ended) and event.group in block:
                last.setdefault(block[event.group], deque(maxlen=SAMPLE)).append(event.group)
        return {name for names in last.values() for name in names} | self._followed.keys()

    def _follow(self, group: GroupHistory) -> dict[str, Lines]:
        known = self._followed.get(group.name)
        if known is None or known[0] != group.asked:  # asked for again, perhaps with other keys
            keys = group.asked.every_key
            known = group.asked, {key: Lines(self.store.trial(key).epochs, ("epoch",)) for key in keys}
            self._followed[group.name] = known
        return known[1]

    def _read(self, group: GroupHistory, apply: Callable[[Event], object]) -> None:
        for key, lines in self._follow(group).items():
            self.store.trial(key).fetch()
            for row in readable(epoch_row, lines.new(), lines.path):
                apply(EpochEnd(group.name, key, row))
