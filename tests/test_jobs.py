"""`submit`, `logs` and `stop` against a real Ray cluster with a token, as a user types them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import TOKEN, environment, kdtune, ray_node, records, refused, sweep, until
from helpers import kdtune_here
from servers import free_port

from kdtune.store import StoreFiles
from kdtune.store.files import read_json, write_json

Records = dict[str, Any]


@dataclass(frozen=True)
class Head:
    """A cluster of one node whose dashboard requires a token."""

    dashboard: str
    gcs: str


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    port, dashboard = free_port(), free_port()
    # Not in pytest's folder: Ray's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="kd", ignore_cleanup_errors=True) as folder:
        arguments = ["--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=2"]
        arguments += [f"--dashboard-port={dashboard}", f"--temp-dir={folder}"]
        with ray_node(*arguments, folder=Path(folder), env=environment(Path(folder), **TOKEN)):
            yield Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}")


@pytest.fixture(scope="module")
def alone(sweep_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Records:
    """The results of the sweep without a cluster."""
    folder = tmp_path_factory.mktemp("alone")
    run = sweep(sweep_file, folder, environment(folder))
    try:
        assert run.ended() == 0, run.text
    finally:
        run.end()
    return records(folder)


def test_a_bad_file_is_refused_before_a_cluster_is_asked(sweep_form: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump({**sweep_form, "objective": {"metric": "luck"}, "pruning": {}}))
    said = refused(kdtune_here("submit", str(file), "--address", "http://127.0.0.1:1", store=tmp_path))
    assert "objective.metric" in said
    assert "pruning" in said
    assert "127.0.0.1" not in said


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "127.0.0.1:8265", "ray://127.0.0.1:10001"])
def test_an_address_without_a_job_server_is_refused(address: str, sweep_file: Path, tmp_path: Path) -> None:
    said = refused(kdtune_here("submit", str(sweep_file), "--address", address, store=tmp_path))
    assert f"{address}: " in said
    assert "http://HEAD:8265" in said
    assert list(tmp_path.iterdir()) == [], "nothing is left in the store"


def test_what_was_never_submitted_has_no_logs_and_is_not_stopped(tmp_path: Path) -> None:
    assert "was not submitted" in refused(kdtune_here("logs", "tiny", store=tmp_path))
    assert "is not running in" in refused(kdtune_here("stop", "tiny", store=tmp_path))


def test_a_job_whose_cluster_is_gone_is_neither_read_nor_stopped(tmp_path: Path) -> None:
    write_json(
        StoreFiles(tmp_path).sweep("tiny").job, {"address": "http://127.0.0.1:1", "submission_id": "kdtune-tiny-0"}
    )
    assert "no Ray job server answers" in refused(kdtune_here("logs", "tiny", store=tmp_path))
    assert "is not running in" in refused(kdtune_here("stop", "tiny", store=tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("token", [{}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}], ids=["none", "another"])
def test_without_the_clusters_token_nothing_runs(
    token: dict[str, str], head: Head, sweep_file: Path, tmp_path: Path
) -> None:
    env = environment(tmp_path, **token)
    said = refused(kdtune("submit", sweep_file, "--address", head.dashboard, "--store", tmp_path / "runs", env=env))
    assert "asks for the cluster's token" in said
    assert "RAY_AUTH_MODE=token" in said
    assert list((tmp_path / "runs").iterdir()) == [], "nothing is left in the store"
    said = refused(kdtune("sweep", sweep_file, "--address", head.gcs, "--store", tmp_path / "runs", env=env))
    assert "asks for the cluster's token" in said


@pytest.mark.slow
def test_a_submitted_sweep_needs_nobody_and_comes_to_the_same_bits(
    head: Head, alone: Records, sweep_form: dict[str, Any], tmp_path: Path
) -> None:
    env, runs = environment(tmp_path, **TOKEN), tmp_path / "runs"
    # The job's working directory is the one in which the command is typed, so relative paths agree.
    (tmp_path / "videos").symlink_to(sweep_form["trial"]["data"]["root"])
    trial = {**sweep_form["trial"], "data": {**sweep_form["trial"]["data"], "root": "videos"}}
    file = tmp_path / "mine.yaml"
    form = {**sweep_form, "trial": trial, "search": {**sweep_form["search"], "candidates": 1}}
    text = yaml.safe_dump(form, sort_keys=False)  # parameters are in the order of their draws
    file.write_text(text)
    submit = ("submit", "mine.yaml", "--set", "search.candidates=4", "--address", head.dashboard, "--store", "runs")
    done = kdtune(*submit, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file.unlink()  # the job reads its own copy
    job = read_json(StoreFiles(runs).sweep("tiny").job)
    assert job["address"] == head.dashboard
    assert job["submission_id"] in done.stdout
    file.write_text(text)
    assert f"still running as job {job['submission_id']}" in refused(kdtune(*submit, env=env, cwd=tmp_path))
    done = kdtune("logs", "tiny", "--follow", "--store", runs, env=env)
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stderr
    assert "12 trials trained" in done.stdout
    assert done.stdout == kdtune("logs", "tiny", "--store", runs, env=env).stdout
    assert records(tmp_path) == alone
    assert "is not running in" in refused(kdtune("stop", "tiny", "--store", runs, env=env))
    results = kdtune("results", "tiny", "--format", "json", "--store", runs, env=env)
    assert all(trial["mlflow_run_id"] for trial in json.loads(results.stdout)["trials"]), "MLflow was where it is here"


@pytest.mark.slow
def test_a_job_that_is_stopped_in_mid_run_resumes_when_it_is_submitted_again(
    head: Head, alone: Records, sweep_file: Path, tmp_path: Path
) -> None:
    env, runs = environment(tmp_path, **TOKEN), tmp_path / "runs"
    submit = ("submit", sweep_file, "--address", head.dashboard, "--store", runs)
    assert kdtune(*submit, env=env).returncode == 0
    until(lambda: "candidate" in kdtune("logs", "tiny", "--store", runs, env=env).stdout, "a candidate has trained")
    done = kdtune("stop", "tiny", "--store", runs, env=env)
    assert done.returncode == 0, done.stderr
    assert "stopped; run the same command again to resume" in done.stderr
    assert "Ray ends the job" not in done.stderr, "its driver has ended it"
    assert not StoreFiles(runs).sweep("tiny").stop.exists()
    begun = records(tmp_path)
    assert begun != alone
    assert kdtune(*submit, env=env).returncode == 0
    assert "succeeded" in kdtune("logs", "tiny", "--follow", "--store", runs, env=env).stderr
    assert records(tmp_path) == alone
