"""Who tells what a sweep does while it runs: a table that is redrawn on a terminal, lines in a file or a pipe."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live as Redrawn

from kdtune.units import duration
from kdtune.watch.board import Board
from kdtune.watch.picture import tables

Row = dict[str, Any]

#: Redraws of a second.
RATE = 2


class Plain:
    """Says everything in lines that read well in a log file. A context manager, as Live is."""

    def __init__(self, out: Callable[[str], object]) -> None:
        self._out = out
        self._lock = threading.RLock()  # Live draws in a thread of its own
        self.board: Board | None = None
        self.heading = ""
        """Stands above Live's table."""
        self.began = time.monotonic()
        """When the sweep's clock began."""

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def begin(self, sweep: Row) -> None:
        """From here on the rows are those of `sweep`, a sweep's stored record."""
        self.watch(Board(sweep))

    def watch(self, board: Board) -> None:
        """From here on `board` takes the rows. It may have taken some before."""
        with self._lock:
            self.board = board
            self.heading = self.heading or board.name

    def say(self, text: str) -> None:
        """A line for people."""
        self._out(text)

    def ledger(self, row: Row) -> None:
        """A row of the ledger; also those of groups that an earlier run has asked."""
        assert self.board is not None, "rows come after begin()"
        with self._lock:
            group = self.board.take(row)
            told = row["event"] == "ended" and group is not None and not row["cached"]
            line = (
                self._timed(f"{row['group']} · {end_words(row, group.thresholds)}")
                if told and group is not None
                else ""
            )
        if line:  # said outside of the lock: a terminal's own lock is taken for that
            self.say(line)

    def epoch(self, group: str, key: str, row: Row) -> None:
        """A row of the trial `key` of a group; one that was told before, by a trial that goes on, may come again."""
        assert self.board is not None, "rows come after begin()"
        with self._lock:
            new = self.board.epoch(group, key, row)
            line = self._timed(f"{self.board.groups[group].named(key)} · {new}") if new is not None else ""
        if line:
            self._stage(line)

    def _stage(self, line: str) -> None:
        self.say(line)

    def _timed(self, text: str) -> str:
        assert self.board is not None
        done = f"{self.board.done:3d}/{self.board.total}"
        return f"[{time.monotonic() - self.began:6.0f} s · {done}] {text}"


class Live(Plain):
    """Draws the board at the foot of a terminal, a few times a second at most; ends and what is said scroll above.

    The table goes when the context ends: what follows (a summary, a last picture) says it all.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True))
        self._console = console
        # Standard output may lead elsewhere. What others print on standard error is moved above the table.
        self._redrawn = Redrawn(
            console=console, get_renderable=self._draw, refresh_per_second=RATE, transient=True, redirect_stdout=False
        )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._redrawn.stop()

    def watch(self, board: Board) -> None:
        super().watch(board)
        self._redrawn.start()

    def _stage(self, line: str) -> None:
        pass  # the table shows it

    def _draw(self) -> Group:
        with self._lock:
            if self.board is None:
                return Group()
            picture = self.board.picture()
            heading = f"{self.heading} · {duration(time.monotonic() - self.began)}"
        return tables(picture, heading, height=self._console.height)


def watcher(stream: TextIO) -> Plain:
    """Live where `stream` is a terminal that can move its cursor, else Plain."""
    console = Console(file=stream)
    if stream.isatty() and console.is_terminal and not console.is_dumb_terminal:
        return Live(console)
    return Plain(lambda text: print(text, file=stream, flush=True))


def end_words(row: Row, thresholds: dict[str, float]) -> str:
    """How a group ended, of its `ended` row and the thresholds it had to clear."""
    if row["state"] == "failed":
        return f"failed: {row['error']}"
    if row["state"] == "pruned":
        return f"pruned at {row['stage']}: below {thresholds.get(row['stage'], 0):.3f}"
    values = [value for value in row.get("objectives") or [row["objective"]] if value is not None]
    many = "s" if len(values) > 1 else ""
    return f"complete, objective{many} {', '.join(f'{value:.3f}' for value in values)}" if values else "complete"
