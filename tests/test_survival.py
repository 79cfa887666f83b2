"""To resume is to run again: drivers, workers and all of Ray are killed at random, with the same command each time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import ROOT, bits, sweep_results

from kdtune.errors import EXIT_INTERRUPTED, EXIT_OK
from kdtune.store import StoreFiles

#: KDTUNE_KILLS=100 runs many more, for a night.
KILLS = int(os.environ.get("KDTUNE_KILLS", "12"))
HOW = ("driver", "worker", "ray", "interrupt", "two interrupts")


def command(file: Path, store: Path) -> subprocess.Popen[str]:
    """Start the user's command with its own Ray."""
    arguments = [sys.executable, "-m", "kdtune", "sweep", str(file), "--store", str(store)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db"}
    return subprocess.Popen(
        arguments, env=environment, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def harm(how: str, driver: subprocess.Popen[str]) -> None:
    """Kill what `how` says with SIGKILL, or interrupt the driver."""
    below = psutil.Process(driver.pid).children(recursive=True)
    names = {process: _name(process) for process in below}
    if how == "driver":
        driver.kill()
    elif how == "worker":
        for process in [process for process, name in names.items() if "TrialWorker" in name][:1]:
            process.kill()
    elif how == "ray":
        for process in below:
            with suppress(psutil.Error):  # it went with its parent
                process.kill()
    else:
        driver.send_signal(signal.SIGINT)
        if how == "two interrupts":
            driver.send_signal(signal.SIGINT)


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def figures(store: Path) -> list[tuple[Any, ...]]:
    fields = ("key", "candidate", "block", "control", "params", "state", "epochs", "stages", "objective", "error")
    return [tuple(trial[name] for name in fields) for trial in sweep_results(StoreFiles(store), "tiny")["trials"]]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_whatever_is_killed_the_same_command_comes_to_the_same_end(sweep_file: Path, tmp_path: Path) -> None:
    quiet = tmp_path / "quiet"
    driver = command(sweep_file, quiet)
    lines = sum("·" in line for line in driver.stderr or ())
    assert driver.wait() == EXIT_OK
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draws, survived, life = random.Random(seed), Counter[str](), 0
    while survived.total() < KILLS:
        life += 1
        store = tmp_path / f"life_{life}"
        complete: dict[str, int] = {}  # the time at which result.json changed: a complete trial is not trained again
        exit_code: int | None = None
        while exit_code != EXIT_OK:
            driver = command(sweep_file, store)
            how, moment, said = draws.choice(HOW), draws.randint(1, lines), []
            harmed = False
            for line in driver.stderr or ():
                said.append(line)
                if sum("·" in text for text in said) == moment and not harmed and survived.total() < KILLS:
                    harm(how, driver)
                    harmed = True
                    survived[how] += 1
            exit_code = driver.wait()
            text = "".join(said)
            assert "Traceback" not in text, text
            if how in ("interrupt", "two interrupts") and harmed:
                assert exit_code in (EXIT_INTERRUPTED, EXIT_OK), text
            if how == "worker" or not harmed:
                assert exit_code == EXIT_OK, text
            for files in StoreFiles(store).trials():
                if files.result() is not None:
                    changed = (files.folder / "result.json").stat().st_mtime_ns
                    assert complete.setdefault(files.key, changed) == changed
        assert figures(store) == figures(quiet)
        for files in StoreFiles(quiet).trials():
            assert files.result() is None or bits(StoreFiles(store).trial(files.key)) == bits(files)
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{store}/mlflow.db")
        (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
        runs = client.search_runs([experiment.experiment_id])
        assert len(runs) == len({run.data.tags.get("kdtune.key") for run in runs}) == 1 + 12, "none doubled"
        assert {run.info.status for run in runs} == {"FINISHED"}
    print(f"survived: {dict(survived)} in {life} lives")
