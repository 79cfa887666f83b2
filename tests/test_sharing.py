"""Two sweeps that share trials at the same time: each counts what it trained itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from databases import empty_database
from helpers import ROOT

from kdtune.config.load import load_sweep
from kdtune.errors import EXIT_OK
from kdtune.execute.books import Ending
from kdtune.execute.driver import drive
from kdtune.execute.ray_tune import RayTune
from kdtune.history.events import Event, Started
from kdtune.store import StoreFiles
from kdtune.store.files import read_jsonl
from kdtune.watch.live import Plain
from sweeps import outcome


def ledger(store: StoreFiles, sweep: str) -> list[dict[str, Any]]:
    (path,) = store.sweep(sweep).folder.glob("ledger_*.jsonl")
    return read_jsonl(path)


@pytest.mark.slow
def test_a_trial_that_another_sweep_trains_meanwhile_is_not_taken_for_ones_own(
    swept: tuple[Path, Ending], sweep_form: dict[str, Any], ray_address: str, tmp_path: Path
) -> None:
    """A control is trained by another process while a worker waits for its lock, and does not use up a budget.

    A teacher exists already, so the budget of one training is left for the candidate.
    """
    search = {**sweep_form["search"], "candidates": 1, "blocks": {}}
    search["space"] = {**search["space"], "teacher": ["c3d"]}
    file = tmp_path / "one.yaml"
    file.write_text(yaml.safe_dump({**sweep_form, "name": "one", "search": search, "stop": {"trials": 1}}))
    store, made = StoreFiles(tmp_path / "runs"), StoreFiles(swept[0])
    asked = [row for row in ledger(made, "tiny") if row["event"] == "asked"]
    teacher = next(row["keys"][0] for row in asked if row["group"] == "teacher c3d")
    control = next(row["keys"][0] for row in asked if row["group"] == "fraction=1.0 · control")
    shutil.copytree(made.trial(teacher).folder, store.trial(teacher).folder)
    lock = store.lock(f"trial-{control}")

    class Watcher(Plain):
        def apply(self, event: Event) -> None:
            super().apply(event)
            if isinstance(event, Started) and event.group.endswith("control"):
                shutil.copytree(made.trial(control).folder, store.trial(control).folder)
                lock.release()

    said: list[str] = []
    lock.acquire()
    uri = empty_database(tmp_path / "mlflow.db")
    end = drive(load_sweep(file, ()), file.read_text(), store, RayTune(ray_address), uri, Watcher(said.append))
    assert end.exit_code == EXIT_OK, said
    assert (end.trained, end.found, end.waited) == (1, 1, 1), said
    assert "1 trials trained, 1 found in runs, 1 trained by another sweep meanwhile; " in end.account("runs")[0]
    cached = {row["group"]: row["cached"] for row in ledger(store, "one") if row["event"] == "ended"}
    assert sorted(cached.values()) == [False, True, True], cached


@pytest.mark.slow
def test_two_sweeps_at_once_train_what_they_share_once(
    swept: tuple[Path, Ending], sweep_form: dict[str, Any], ray_address: str, tmp_path: Path
) -> None:
    """The same question under two names, asked by two drivers at the same time."""
    root = tmp_path / "runs"
    running = []
    for name in ("one", "two"):
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump({**sweep_form, "name": name}))
        command = [sys.executable, "-m", "kdtune", "sweep", str(file), "--store", str(root), "--address", ray_address]
        environment = {**os.environ, "MLFLOW_TRACKING_URI": empty_database(tmp_path / f"{name}.db")}
        pipe = subprocess.PIPE
        running.append(subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, cwd=ROOT))
    counts = []
    for process in running:
        out, err = process.communicate()
        assert process.returncode == EXIT_OK, err
        told = re.search(
            r"(\d+) trials trained, (\d+) found in \S+?(?:, (\d+) trained by another sweep meanwhile)?;", out
        )
        assert told is not None, out
        counts.append([int(number or 0) for number in told.groups()])
    alone = swept[1].trained
    assert [sum(each) for each in counts] == [alone] * 2
    assert sum(trained for trained, _, _ in counts) == alone, counts
    for name in ("one", "two"):
        assert outcome(root, name) == outcome(swept[0])
