"""A store with a small sweep that was really trained, without Ray, and ways to damage its files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from kdtune.config.sweep import SweepConfig
from kdtune.history.record import SweepRecord
from kdtune.store import StoreFiles
from kdtune.store.files import write_json
from kdtune.sweep.group import outcome_in_store
from kdtune.sweep.ledger import Ledger
from kdtune.sweep.scheduler import SweepScheduler
from kdtune.sweep.study import Journal
from kdtune.train.measuring.usage import UsageMeter
from kdtune.train.session import Session

#: Ways to damage a file; `at` is a position as a share of its length.
WAYS = ("truncated", "a flipped bit", "another type", "a folder", "empty", "deleted", "binary")
OTHERS = ("[]", "3", '"text"', "{}", "null", '{"event": 1}', "[" * 5000)


def damaged(path: Path, way: str, at: float) -> None:
    """Damage the file at `path` in one of WAYS."""
    content = path.read_bytes()
    place = min(int(at * len(content)), len(content) - 1)
    path.unlink()
    if way == "truncated":
        path.write_bytes(content[:place])
    elif way == "a flipped bit":
        bit = int(at * len(content) * 8) % 8
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
    elif way == "another type":
        path.write_text(OTHERS[int(at * len(OTHERS)) % len(OTHERS)] + "\n")
    elif way == "a folder":
        path.mkdir()
        (path / "file").write_text("x")
    elif way == "empty":
        path.touch()
    elif way == "binary":
        path.write_bytes(bytes(range(256)) * 4)


class Snapshot:
    """A snapshot of a store. `restored` restores it, including the times, which tell whether a driver is alive."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files = {path: (path.read_bytes(), _times(path)) for path in root.rglob("*") if path.is_file()}

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Restore every file, and remove any other, at the end of the block."""
        try:
            yield
        finally:
            for path in sorted(self.root.rglob("*"), reverse=True):
                if path.is_dir() and path in self._files:
                    shutil.rmtree(path)
                elif path.is_file() and path not in self._files:
                    path.unlink()
            for path, (content, times) in self._files.items():
                if not path.exists() or _times(path) != times or path.stat().st_size != len(content):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                    os.utime(path, ns=times)


def _times(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_mtime_ns


def sweep_form(trial: dict[str, Any]) -> dict[str, Any]:
    """A control and two candidates without teachers."""
    return {
        "name": "small",
        "trial": trial,
        "search": {"space": {"alpha": {"range": [0.1, 1.0]}}, "candidates": 2, "window": 2, "sampler": "random"},
        "objective": {"metric": "knn"},
    }


def trained_sweep(folder: Path, session: Session, trial: dict[str, Any]) -> Path:
    """Train that sweep in a copy of the session's store below `folder`. Return its file."""
    form = sweep_form(trial)
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(form))
    shutil.copytree(session.store.root, folder / "runs")
    store, sweep = StoreFiles(folder / "runs"), SweepConfig.model_validate(form)
    here = Session(store)
    files = store.sweep(sweep.name)
    ledger = files.ledger(sweep.ledger)
    write_json(files.sweep, SweepRecord.of(sweep, ledger.name, file.read_text(), {}).row())

    def key_of(config: Any) -> str:
        here.prepare(config)
        return here.key(config)

    scheduler = SweepScheduler(sweep, key_of, Ledger(ledger), Journal(files.study(ledger), sweep))
    while (group := scheduler.next_to_train(store)) is not None:
        for config in group.configs:
            trial_files, meter = here.files(config), UsageMeter(torch.device("cpu"))
            for row in here.trial(config, torch.device("cpu")):
                meter.note(trial_files, row)
        outcome = outcome_in_store(group, sweep.objectives, store)
        assert outcome is not None
        scheduler.finish(group, outcome, cached=False)
    some = next(iter(scheduler.groups.values())).asked.keys[0]
    write_json(store.trial(some).folder / "failure.json", {"error": "an old one", "out_of_memory": False})
    write_json(files.job, {"address": "http://127.0.0.1:1", "submission_id": "kdtune-small-0"})
    write_json(files.driver, {"host": "box", "pid": 1, "since": 1.0, "address": None})
    os.utime(files.driver, (1.0, 1.0))  # the driver died long ago
    store.claim()
    return file


def files_of(root: Path) -> list[Path]:
    """Return every file of the store that holds JSON, Parquet or Optuna's journal."""
    found = (path for pattern in ("*.json", "*.jsonl", "*.parquet", "*.log") for path in root.rglob(pattern))
    return sorted(path for path in found if path.is_file() and path.stat().st_size > 0)
