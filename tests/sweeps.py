"""Sweeps run by a test: in this process, or by the command in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from databases import empty_database
from helpers import ROOT

from kdtune.config.load import load_sweep
from kdtune.execute.driver import Ending, drive
from kdtune.report.results import sweep_results
from kdtune.store import Store
from kdtune.watch.live import Plain


def run(file: Path, store: Path, address: str | None, sets: tuple[str, ...] = ()) -> tuple[Ending, list[str]]:
    """How it ended, and the lines it said."""
    said: list[str] = []
    uri = empty_database(store / "mlflow.db")
    end = drive(load_sweep(file, sets), file.read_text(), Store(store), address, uri, Plain(said.append))
    return end, said


def started(file: Path, store: Path, address: str, until: tuple[str, ...]) -> subprocess.Popen[str]:
    """The command in a process of its own, once it has said a line with all words of `until`."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": empty_database(store / "mlflow.db")}
    command = [sys.executable, "-m", "kdtune", "sweep", str(file), "--store", str(store), "--address", address]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    for line in process.stderr:
        if all(word in line for word in until):
            return process
    raise AssertionError(f"it ended with {process.wait()} before it said {until}")


def outcome(store: Path, name: str = "tiny") -> list[tuple[Any, ...]]:
    """Everything of a sweep's results that must not depend on how or when it ran."""
    fields = ("key", "candidate", "block", "control", "seed", "params", "state", "epochs", "stages", "objective")
    trials = sweep_results(Store(store), name, {})["trials"]
    return [tuple(trial[field] for field in (*fields, "weights_sha256", "error")) for trial in trials]
