"""A whole sweep on a store behind a URL: driver and Ray's workers each have their own working copy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT, sweep_results

from kdtune.cli import main
from kdtune.config.load import load_sweep
from kdtune.errors import EXIT_OK
from kdtune.execute.driver import drive
from kdtune.execute.ray_tune import RayTune
from kdtune.store import StoreFiles
from kdtune.watch.live import Plain

#: tests/test_remote_trials.py covers for single trials what this file covers for sweeps.
pytestmark = pytest.mark.slow

#: Fields of a trial in the results that depend on when and where it was trained.
PASSING = ("seconds", "cached", "cost", "profile", "mlflow_run_id")


@pytest.fixture(scope="module")
def file(sweep_form: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, a control and two candidates."""
    search = {**sweep_form["search"], "candidates": 2, "blocks": {}}
    search["space"] = {**search["space"], "teacher": ["c3d"]}
    path = tmp_path_factory.mktemp("sweep") / "small.yaml"
    path.write_text(yaml.safe_dump({**sweep_form, "name": "small", "search": search}, sort_keys=False))
    return path


def results(store: StoreFiles) -> list[dict[str, Any]]:
    trials = sweep_results(store, "small")["trials"]
    return [{name: value for name, value in trial.items() if name not in PASSING} for trial in trials]


@pytest.fixture(scope="module")
def undisturbed(file: Path, ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of the same sweep in a folder."""
    folder = tmp_path_factory.mktemp("folder")
    uri = f"sqlite:///{folder}/mlflow.db"
    watch = Plain(print)
    end = drive(load_sweep(file, ()), file.read_text(), StoreFiles(folder), RayTune(ray_address), uri, watch)
    assert end.exit_code == EXIT_OK
    return results(StoreFiles(folder))


def settings(machine: Path) -> dict[str, str]:
    """Return the environment of a process on another machine."""
    machine.mkdir(parents=True, exist_ok=True)
    return {"KDTUNE_CACHE": str(machine / "cache"), "MLFLOW_TRACKING_URI": f"sqlite:///{machine}/mlflow.db"}


@pytest.fixture
def sweep(file: Path, s3: str, ray_address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return a function that runs the sweep with the driver on a machine, and returns its output."""

    def run(machine: Path) -> str:
        for name, value in settings(machine).items():
            monkeypatch.setenv(name, value)
        assert main(["sweep", str(file), "--address", ray_address, "--store", s3]) == EXIT_OK, capsys.readouterr().err
        return capsys.readouterr().out

    return run


def test_a_sweep_on_one_machine_is_found_by_another(
    s3: str, sweep: Any, undisturbed: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert f"4 trials trained, 0 found in {s3}" in sweep(tmp_path / "a")
    assert results(StoreFiles(s3)) == undisturbed
    # The driver has read what the workers published, and sent every epoch to MLflow.
    from mlflow import MlflowClient

    client = MlflowClient(settings(tmp_path / "a")["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = [run.info.run_id for run in client.search_runs([experiment.experiment_id])]
    epochs = [{metric.step for metric in client.get_metric_history(run, "epoch_seconds")} for run in runs]
    assert sorted(map(len, epochs)) == [0, 2, 2, 2, 2]
    assert f"0 trials trained, 4 found in {s3}" in sweep(tmp_path / "b")
    assert results(StoreFiles(s3)) == undisturbed


def test_a_sweep_whose_driver_was_killed_resumes_on_another_machine(
    file: Path, s3: str, ray_address: str, sweep: Any, undisturbed: list[dict[str, Any]], tmp_path: Path
) -> None:
    line = [sys.executable, "-m", "kdtune", "sweep", str(file), "--address", ray_address, "--store", s3]
    environment = {**os.environ, **settings(tmp_path / "a")}
    driver = subprocess.Popen(line, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    assert driver.stderr is not None
    next(said for said in driver.stderr if "complete" in said)
    driver.kill()
    driver.communicate()
    assert " 0 found" not in sweep(tmp_path / "b")
    assert results(StoreFiles(s3)) == undisturbed
