"""A real sweep in MLflow, and `kdtune publish`, which recreates the same from the store alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from databases import empty_database
from helpers import ROOT, link_clips, sweep_results
from mlflow import MlflowClient
from outages import Database, python
from servers import free_port, wait_until

import kdtune
from kdtune.cli import main
from kdtune.commands.report import log_report
from kdtune.config.load import load_sweep
from kdtune.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USER_ERROR
from kdtune.execute.driver import drive
from kdtune.execute.in_process import InProcess
from kdtune.history.reading import read_history
from kdtune.store import StoreFiles
from kdtune.store.files import read_json, read_jsonl
from kdtune.tracking.artifacts import publish_files
from kdtune.train.session import Session
from kdtune.watch.live import Plain

#: Tags of a run that differ when it is made again.
OWN = ("mlflow.parentRunId", "mlflow.user", "mlflow.runName")


def shown(uri: str, name: str = "small") -> dict[str, dict[str, Any]]:
    """Return all that MLflow has of a sweep: its own run by its name, each trial's by its key."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    found = {}
    for run in client.search_runs([experiment.experiment_id]):
        run_id = run.info.run_id
        histories = {metric: client.get_metric_history(run_id, metric) for metric in run.data.metrics}
        logged = client.search_logged_models([experiment.experiment_id], f"source_run_id = '{run_id}'")
        found[run.data.tags.get("kdtune.key", name)] = {
            "name": run.info.run_name,
            "status": run.info.status,
            "start": run.info.start_time,
            "end": run.info.end_time,
            "params": run.data.params,
            "tags": {tag: value for tag, value in run.data.tags.items() if tag not in OWN},
            "metrics": {m: sorted((e.step, e.timestamp, e.value) for e in h) for m, h in histories.items()},
            "data": {i.tags[0].value: i.dataset.to_dictionary() for i in run.inputs.dataset_inputs},
            "models": [model.tags for model in logged],
            "outputs": len(run.outputs.model_outputs) if run.outputs else 0,
            "files": sorted(entry.path for entry in client.list_artifacts(run_id)),
        }
    return found


@pytest.fixture(scope="module")
def form(sweep_form: dict[str, Any]) -> dict[str, Any]:
    """A teacher, a control and two candidates with two seeds; one block."""
    search = {**sweep_form["search"], "candidates": 2, "blocks": {}, "seeds": [0, 1]}
    search["space"] = {**search["space"], "teacher": ["c3d"]}
    tracking = {"register": "kdtune-small"}
    return {**sweep_form, "name": "small", "question": "Is it better?", "search": search, "tracking": tracking}


@pytest.fixture(scope="module")
def swept(form: dict[str, Any], prepared: Session, tmp_path_factory: pytest.TempPathFactory) -> tuple[StoreFiles, str]:
    """The store, and MLflow's URI."""
    folder = tmp_path_factory.mktemp("published")
    file, uri = folder / "small.yaml", empty_database(folder / "mlflow" / "mlflow.db")
    file.write_text(yaml.safe_dump(form, sort_keys=False))
    link_clips(prepared.store.root, folder / "runs")
    store = StoreFiles(folder / "runs")
    end = drive(load_sweep(file), file.read_text(), store, InProcess(), uri, Plain(lambda _: None))
    assert end.exit_code == EXIT_OK
    assert end.notes == []
    page, unsent = log_report(store, "small", uri)  # as the command `sweep` does at the end
    assert (page.name, unsent) == ("report.html", [])
    return store, uri


@pytest.fixture(scope="module")
def runs(swept: tuple[StoreFiles, str]) -> dict[str, dict[str, Any]]:
    """What MLflow has after the driver has ended."""
    return shown(swept[1])


def publish(store: StoreFiles, uri: str, monkeypatch: pytest.MonkeyPatch, name: str = "small") -> int:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return main(["publish", name, "--store", str(store.root)])


def test_the_sweeps_own_run_says_its_question_and_its_result(
    swept: tuple[StoreFiles, str], runs: dict[str, Any]
) -> None:
    store, parent = swept[0], runs["small"]
    question, _, result = parent["tags"]["mlflow.note.content"].partition("\n\n")
    assert question == "Is it better?"
    trials = sweep_results(store, "small")["trials"]
    best = sweep_results(store, "small")["best"]["all"]
    mean = sum(t["objective"] for t in trials if t["candidate"] == best["candidate"]) / 2
    control = sum(t["objective"] for t in trials if t["control"]) / 2
    (row,) = [line for line in result.splitlines() if line.startswith("| all |")]
    _, _, shown_control, shown_best, difference, interval, verdict, _ = (cell.strip() for cell in row.split("|"))
    assert shown_control.startswith(f"{control:.3f} ± ")
    assert shown_best.startswith(f"{mean:.3f} ± ")
    assert f"candidate {best['candidate']} (" in shown_best
    metric = read_history(store, "small").metric
    assert difference == metric.gain_text(metric.gain(mean, control))
    gain = read_history(store, "small").gains("all")[best["candidate"]]
    assert (interval, verdict) == (metric.interval_text(gain.low, gain.high), gain.verdict)
    assert "pretext loss** on validation at late (lower is better)" in result
    assert result.startswith(kdtune.open_sweep("small", store=store.root).answer)


def test_data_sets_are_inputs_named_by_what_is_in_them(
    swept: tuple[StoreFiles, str], runs: dict[str, Any], videos: Path
) -> None:
    store, _ = swept
    for key, run in runs.items():
        if key == "small":
            continue
        record, identity = read_json(store.trial(key).data), read_json(store.trial(key).config)
        assert run["data"].keys() == {"training", "validation", "test"}
        digests = {part["digest"] for part in run["data"].values()}
        assert len(digests) == 3
        for context, part in run["data"].items():
            profile = json.loads(part["profile"])
            assert part["name"] == "synthetic"
            assert json.loads(part["source"]) == {"uri": str(videos)}
            assert profile["manifest"] == identity["data"], "what the trial's key hashes"
            assert profile["num_rows"] == record["videos"][context]
            assert profile["classes"] == 4
        # 40 videos in five groups, one of which the lists hold back.
        assert sum(record["videos"].values()) == 40
        assert record["videos"]["test"] == 8
    assert len({str(run["data"]) for key, run in runs.items() if key != "small"}) == 1, "one set for all trials"


def test_system_metrics_stand_beside_the_rows(swept: tuple[StoreFiles, str], runs: dict[str, Any]) -> None:
    store, _ = swept
    for key, run in runs.items():
        if key == "small":
            continue
        lines = read_jsonl(store.trial(key).machine)
        assert [line["epoch"] for line in lines] == [row["epoch"] for row in store.trial(key).rows()]
        for name in ("cpu_utilization_percentage", "system_memory_usage_megabytes", "process_memory_usage_megabytes"):
            expected = [(line["epoch"], int(line["at"] * 1000), line[name]) for line in lines]
            assert run["metrics"][f"system/{name}"] == expected


def test_tags_say_the_commit_the_key_and_the_state(swept: tuple[StoreFiles, str], runs: dict[str, Any]) -> None:
    store, _ = swept
    git = ["git", "-C", str(Path.cwd()), "rev-parse", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    for key, run in runs.items():
        if done.returncode == 0:
            assert run["tags"]["mlflow.source.git.commit"] == done.stdout.strip()
            assert run["tags"]["kdtune.git.dirty"] in ("true", "false")
        if key != "small":
            result = store.trial(key).result()
            assert run["tags"]["kdtune.state"] == ("complete" if result else "pruned")
            assert run["tags"]["kdtune.cached"] == "false"
            assert result is None or json.loads(run["tags"]["kdtune.profile"]) == result["profile"]


def test_the_best_and_its_control_are_models_and_the_best_is_registered(
    swept: tuple[StoreFiles, str], runs: dict[str, Any]
) -> None:
    store, uri = swept
    results = sweep_results(store, "small")
    control = next(trial["key"] for trial in results["trials"] if trial["control"] and trial["seed"] == 0)
    best = results["best"]["all"]["key"]
    assert {key for key, run in runs.items() if run["models"]} == {best, control}
    assert all(run["outputs"] == len(run["models"]) <= 1 for run in runs.values())
    version = MlflowClient(tracking_uri=uri).get_model_version_by_alias("kdtune-small", "best-all")
    assert version.tags["kdtune.key"] == best


def test_publish_shows_what_the_driver_showed(
    swept: tuple[StoreFiles, str],
    runs: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store, _ = swept
    other = f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    for _ in range(2):  # the second time everything is there already
        assert publish(store, other, monkeypatch) == EXIT_OK
    first = min(run["start"] for key, run in runs.items() if key != "small")
    runs["small"]["start"] = first  # the store does not record when the driver started
    assert shown(other) == runs
    assert "MLflow has 7 trials of small, 2 students as models, and its report." in capsys.readouterr().out


def test_publish_doubles_nothing_that_the_driver_sent(
    swept: tuple[StoreFiles, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, uri = swept
    before = shown(uri)
    assert publish(store, uri, monkeypatch) == EXIT_OK
    assert shown(uri) == before


def test_publish_refuses_what_it_cannot_do(
    swept: tuple[StoreFiles, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, uri = swept
    assert publish(store, uri, monkeypatch, "smal") == EXIT_USER_ERROR
    assert "holds no sweep named 'smal'" in capsys.readouterr().err
    with store.lock("sweep-small"):
        command = python("-m", "kdtune", "publish", "small", "--store", store.root)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_USER_ERROR
    assert "another process runs or publishes it" in done.stderr
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert publish(store, f"http://127.0.0.1:{free_port()}", monkeypatch) == EXIT_USER_ERROR
    assert "did not receive 7 trials" in capsys.readouterr().err
    # The refused commands have left no lock behind.
    assert publish(store, uri, monkeypatch) == EXIT_OK


@pytest.mark.slow
def test_publish_imports_neither_ray_nor_torch(swept: tuple[StoreFiles, str]) -> None:
    store, uri = swept
    code = f"""
import sys, kdtune.cli
print(kdtune.cli.main(["publish", "small", "--store", {str(store.root)!r}]))
print([name for name in ("ray", "torch") if name in sys.modules])
"""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    done = subprocess.run(python("-c", code), cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == [str(EXIT_OK), "[]"], "MLflow has every model already"


def test_files_become_artifacts_of_the_sweeps_run(swept: tuple[StoreFiles, str], tmp_path: Path) -> None:
    _, uri = swept
    page = tmp_path / "report.html"
    for text in ("first", "second"):
        page.write_text(text)
        assert publish_files(uri, "small", "small", "notes", [page]) == []
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("small")
    (parent,) = [r for r in client.search_runs([experiment.experiment_id]) if "kdtune.sweep" in r.data.tags]
    assert parent.info.status == "FINISHED"
    assert [entry.path for entry in client.list_artifacts(parent.info.run_id, "notes")] == ["notes/report.html"]
    path = client.download_artifacts(parent.info.run_id, "notes/report.html", str(tmp_path / ""))
    assert Path(path).read_text() == "second"
    (problem,) = publish_files(uri, "small", "other", "notes", [page])
    assert "kdtune publish other" in problem


@pytest.mark.slow
def test_what_another_sweep_trained_is_shown_while_the_new_one_still_trains(
    swept: tuple[StoreFiles, str], form: dict[str, Any], tmp_path: Path
) -> None:
    store, _ = swept
    database, file = Database(tmp_path / "mlflow.db"), tmp_path / "more.yaml"
    more = {**form, "name": "more", "search": {**form["search"], "candidates": 40}, "tracking": {"models": "none"}}
    file.write_text(yaml.safe_dump(more, sort_keys=False))
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{database.path}"}
    command = python("-m", "kdtune", "sweep", file, "--store", store.root, "--backend", "inprocess")
    sweep = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    found = """SELECT count(*) FROM runs JOIN tags USING (run_uuid) WHERE status = 'FINISHED'
        AND key = 'kdtune.cached' AND tags.value = 'true'"""
    running = """SELECT count(*) FROM runs JOIN tags USING (run_uuid) WHERE status = 'RUNNING'
        AND key = 'kdtune.sweep'"""

    def seen() -> bool:
        assert sweep.poll() is None, "it has ended"
        return database.ask(f"SELECT ({found}), ({running})") == [(7, 1)]

    try:
        wait_until(seen, "all seven trials of the other sweep are shown, and this one runs")
        sweep.send_signal(signal.SIGINT)
        assert sweep.wait(120) == EXIT_INTERRUPTED
    finally:
        sweep.kill()
        sweep.wait()
