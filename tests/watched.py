"""What the tests of watching share: rows as a scheduler and trials write them, and a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import kdtune_here

from kdtune.history.events import Asked, Ended, EpochEnd, EpochRow, Event, LedgerEvent, Outcome
from kdtune.history.metric import MetricSpec
from kdtune.history.record import SweepRecord
from kdtune.history.sweep import SweepHistory
from kdtune.store import StoreFiles, SweepFiles
from kdtune.store.files import append_jsonl, write_json

Row = dict[str, Any]

KNN = MetricSpec("knn", "validation", "late", "max", "knn")
GMAC = MetricSpec("gmac", "validation", "late", "min", "gmac", cost=True)


def a_record(**changes: Any) -> SweepRecord:
    """A sweep of two blocks of three candidates; trials of 8 epochs."""
    fields: Row = {"name": "s", "blocks": {"f=1": 3, "f=0.5": 3}, "stages": {"early": 2, "late": 8}, "epochs": 8}
    return SweepRecord(**{**fields, "objectives": (KNN,), "ledger": "ledger.jsonl", **changes})


def a_history(*events: Event, **changes: Any) -> SweepHistory:
    return SweepHistory(a_record(**changes), events)


def asked(kind: Any, number: int | None, block: str | None = "f=1", seeds: int = 1, **fields: Any) -> Asked:
    """A group with the seeds 0, 1, …, whose keys are its name with the seed."""
    name = "teacher c3d" if block is None else f"{block} · {kind}" + (f" {number}" if kind == "candidate" else "")
    keys = tuple(f"{name}/{seed}" for seed in range(seeds))
    group: Row = {"group": name, "kind": kind, "block": block, "number": number, "seeds": tuple(range(seeds))}
    return Asked(**{**group, "keys": keys, "params": ({"teacher": "c3d"},) * seeds, "epochs": 8, **fields})


def ended(group: str, state: Any, *objectives: float, seeds: int = 1, cached: bool = False, **fields: Any) -> Ended:
    """A group's end; each objective has the same value for every seed."""
    return Ended(group, Outcome(state, tuple((value,) * seeds for value in objectives), **fields), cached)


def epoch(
    group: str, number: int, seconds: float = 1.0, stage: str | None = None, knn: float | None = None, seed: int = 0
) -> EpochEnd:
    found = None if knn is None else {"validation": {"knn": knn}, "test": {"knn": 0.0}}
    return EpochEnd(group, f"{group}/{seed}", EpochRow(number, seconds, stage=stage, evaluation=found))


def tuned(group: str, number: int, top1: float, seed: int = 0, stage: str | None = "finetune") -> EpochEnd:
    """An evaluated epoch of the fine-tuning `tuned/SEED`."""
    found = {"validation": {"top1": top1}, "test": {"top1": 0.0}}
    return EpochEnd(group, f"tuned/{seed}", EpochRow(number, 1.0, stage=stage, evaluation=found))


#: What hides a terminal's cursor, and shows it again.
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Terminal:
    """A real pseudo-terminal that can move its cursor, read while it is written to."""

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
        """Everything that was written, when nobody writes any more."""
        self.stream.close()
        self._reader.join()
        os.close(self.master)
        return self.text


def a_sweep(root: Path, name: str = "tiny", *events: LedgerEvent, **changes: Any) -> SweepFiles:
    """A sweep's files as a driver writes them, for one block of four candidates of two epochs."""
    files = StoreFiles(root).sweep(name)
    fields: Row = {"name": name, "blocks": {"all": 4}, "stages": {"early": 1, "late": 2}, "epochs": 2}
    write_json(files.sweep, a_record(**{**fields, "ledger": "ledger_0.jsonl", **changes}).row())
    tell(files, *events)
    return files


def tell(files: SweepFiles, *events: LedgerEvent) -> None:
    """Append events to the ledger of `a_sweep`."""
    for event in events:
        append_jsonl(files.folder / "ledger_0.jsonl", event.row())


@contextmanager
def driven(root: Path, name: str = "tiny") -> Iterator[SweepFiles]:
    """Within the `with` a driver runs the sweep: it holds its lock."""
    files = StoreFiles(root).sweep(name)
    with StoreFiles(root).lock(f"sweep-{name}"):
        left_by_driver(files)
        yield files


def left_by_driver(files: SweepFiles, **changes: Any) -> None:
    """driver.json as a driver leaves it that was killed."""
    driver = {"host": "box", "pid": 1234, "since": time.time() - 60, "address": None, "seconds": 60.0}
    write_json(files.driver, {**driver, **changes})


def status(root: Path, *arguments: str) -> Row:
    done = kdtune_here("status", *arguments, "--format", "json", store=root)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
