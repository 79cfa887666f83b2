"""Run sweeps in tests: in this process, or by the command in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from databases import empty_database
from helpers import ROOT, sweep_results

from kdtune.config.load import load_sweep
from kdtune.execute.backend import Backend
from kdtune.execute.books import Ending
from kdtune.execute.driver import drive
from kdtune.execute.ray_tune import RayTune
from kdtune.history.events import Event
from kdtune.store import StoreFiles
from kdtune.sweep.stopping import Cancel
from kdtune.watch.live import Plain


def run(
    file: Path,
    store: Path,
    on: Backend | str | None,
    sets: tuple[str, ...] = (),
    cancel: Cancel | None = None,
    seen: Callable[[Event], object] = lambda event: None,
) -> tuple[Ending, list[str]]:
    """Run a sweep on a backend or the Ray at an address. Return how it ended and the lines it printed.

    `seen` is called with each event.
    """
    said: list[str] = []
    uri = empty_database(store / "mlflow.db")

    class Watcher(Plain):
        def apply(self, event: Event) -> None:
            super().apply(event)
            seen(event)

    backend = RayTune(on) if on is None or isinstance(on, str) else on
    end = drive(load_sweep(file, sets), file.read_text(), StoreFiles(store), backend, uri, Watcher(said.append), cancel)
    return end, said


def started(file: Path, store: Path, address: str, until: tuple[str, ...]) -> subprocess.Popen[str]:
    """Start the command in its own process, and return once it has printed a line with all words of `until`."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": empty_database(store / "mlflow.db")}
    command = [sys.executable, "-m", "kdtune", "sweep", str(file), "--store", str(store), "--address", address]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    for line in process.stderr:
        if all(word in line for word in until):
            return process
    raise AssertionError(f"it ended with {process.wait()} before it said {until}")


def outcome(store: Path, name: str = "tiny") -> list[tuple[Any, ...]]:
    """Return everything of a sweep's results that must not depend on how or when it ran."""
    fields = ("key", "candidate", "block", "control", "seed", "params", "state", "epochs", "stages", "objective")
    trials = sweep_results(StoreFiles(store), name)["trials"]
    return [tuple(trial[field] for field in (*fields, "weights_sha256", "error")) for trial in trials]
