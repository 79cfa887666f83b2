"""Shared by the tests of watching: rows as a scheduler and trials write them, and a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import termios
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import kdtune

from kdtune.store import Store, SweepFiles
from kdtune.store.files import append_jsonl, write_json
from kdtune.watch.board import Board

Row = dict[str, Any]

OBJECTIVE = {"metric": "knn", "split": "validation", "stage": "late", "mode": "max", "column": "knn"}
#: Two blocks of three candidates; trials of 8 epochs.
SWEEP: Row = {
    "name": "s",
    "blocks": {"f=1": 3, "f=0.5": 3},
    "stages": {"early": 2, "late": 8},
    "objective": OBJECTIVE,
    "ledger": "ledger.jsonl",
}


def asked(kind: str, number: int | None, block: str | None = "f=1", seeds: int = 1, **fields: Any) -> Row:
    name = "teacher c3d" if block is None else f"{block} · {kind}" + (f" {number}" if kind == "candidate" else "")
    keys = [f"{name}/{seed}" for seed in range(seeds)]
    row = {"event": "asked", "group": name, "kind": kind, "block": block, "number": number, "values": {}, "params": []}
    return {**row, "seeds": list(range(seeds)), "keys": keys, "finetuned": [], **fields}


def ended(group: str, state: str, objective: float | None = None, **fields: Any) -> Row:
    row = {"event": "ended", "group": group, "state": state, "objective": objective, "stages": {}, "stage": None}
    return {**row, "error": None, "cached": False, **fields}


def epoch(number: int, seconds: float = 1.0, stage: str | None = None, knn: float | None = None) -> Row:
    row: Row = {"epoch": number, "seconds": seconds}
    if knn is not None:
        row["evaluation"] = {"validation": {"knn": knn}, "test": {"knn": 0.0}}
    return row if stage is None else {**row, "stage": stage}


#: Sequences that hide and show a terminal's cursor.
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Terminal:
    """A real pseudo-terminal that can move its cursor and is read while it is written to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lines: int = 24, columns: int = 100) -> None:
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "LINES", "COLUMNS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TERM", "xterm-256color")
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.stream = os.fdopen(self.slave, "w")
        self._read = b""
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def _drain(self) -> None:
        while True:
            try:
                some = os.read(self.master, 65536)
            except OSError:  # the other side is closed
                return
            self._read += some

    @property
    def text(self) -> str:
        return self._read.decode(errors="replace")

    def closed(self) -> str:
        """Return everything that was written, once nothing writes any more."""
        self.stream.close()
        self._reader.join()
        os.close(self.master)
        return self.text


def a_sweep(root: Path, name: str = "tiny", *rows: Row, **fields: Any) -> SweepFiles:
    """Write a sweep's files as a driver does, for one block of four candidates of two epochs."""
    files = Store(root).sweep(name)
    record = {"name": name, "blocks": {"all": 4}, "stages": {"early": 1, "late": 2}, "objective": OBJECTIVE}
    write_json(files.sweep, {**record, "ledger": "ledger_0.jsonl", "text": "", **fields})
    for row in rows:
        append_jsonl(files.folder / "ledger_0.jsonl", row)
    return files


def driven(files: SweepFiles, silent: float = 0.0) -> None:
    """Write driver.json as a driver leaves it that touched it the given number of seconds ago."""
    write_json(files.driver, {"host": "box", "pid": 1234, "since": time.time() - 60, "address": None})
    then = time.time() - silent
    os.utime(files.driver, (then, then))


def status(root: Path, *arguments: str) -> Row:
    done = kdtune("status", *arguments, "--format", "json", store=root)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def a_board(*rows: Row, **changes: Any) -> Board:
    board = Board({**SWEEP, **changes})
    for row in rows:
        board.take(row)
    return board
