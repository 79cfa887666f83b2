"""The publisher against real MLflow: SQLite databases, and a server that goes away and comes back."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from servers import free_port, served, wait_until
from tracked import BEGAN_AT, EXPERIMENT, SWEEP, Shown, make_trial, make_trials, publish, write_epoch

import kdtune.tracking.publish
from kdtune.store import StoreFiles
from kdtune.store.files import append_jsonl, read_json
from kdtune.tracking.publish import Publisher, TrackedTrial, publish_trial, read_run_ids
from kdtune.tracking.sweep_text import SweepText

if TYPE_CHECKING:
    from kdtune.tracking.view import View


def test_a_sweep_as_mlflow_shows_it(uri: str, store: StoreFiles, tmp_path: Path) -> None:
    assert publish(uri, tmp_path, make_trials(store)) == []
    shown = Shown(uri)

    (parent,) = shown.parents
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["mlflow.note.content"] == "Which one is best?\n\nThe third."
    assert [entry.path for entry in shown.client.list_artifacts(parent.info.run_id)] == ["sweep.yaml"]
    assert {run.data.tags["mlflow.parentRunId"] for run in shown.trials.values()} == {parent.info.run_id}

    # The pending trial has nothing to show yet; the sweep's end interrupted the running one.
    assert {name: (run.info.status, run.data.tags["kdtune.state"]) for name, run in shown.trials.items()} == {
        "1 · c3d": ("FINISHED", "complete"),
        "2 · c3d": ("FINISHED", "pruned"),
        "3 · c3d": ("FAILED", "failed"),
        "4 · c3d": ("KILLED", "interrupted"),
    }
    run = shown.trials["1 · c3d"]
    expected = {"teacher": "c3d", "lambda": "0.5", "tau": "none", "fraction": "1.0", "key": run.data.tags["kdtune.key"]}
    assert run.data.params == expected
    assert run.data.tags["kdtune.weights_sha256"] == f"{1:064x}"
    assert json.loads(run.data.tags["kdtune.profile"]) == {"device": "cpu"}
    assert shown.trials["3 · c3d"].data.tags["kdtune.error"] == "the loss is not finite at epoch 2"
    assert run.info.start_time == int(BEGAN_AT * 1000)
    assert run.info.end_time == int(BEGAN_AT * 1000) + 8000
    config = Path(shown.client.download_artifacts(run.info.run_id, "config.json", str(tmp_path)))
    assert read_json(config) == {"seed": 1}


def test_metric_histories_are_the_rows(uri: str, store: StoreFiles, tmp_path: Path) -> None:
    trials = make_trials(store)
    assert publish(uri, tmp_path, trials) == []
    shown = Shown(uri)
    for trial in trials[:4]:
        rows = trial.files.rows()
        at_ms = {row["epoch"]: int(row["at"] * 1000) for row in rows}
        expected = {
            "train/loss": [(row["epoch"], row["train"]["loss"], at_ms[row["epoch"]]) for row in rows],
            "lr": [(row["epoch"], 0.01, at_ms[row["epoch"]]) for row in rows],
            "epoch_seconds": [(row["epoch"], 2.0, at_ms[row["epoch"]]) for row in rows],
        }
        staged = [row for row in rows if "stage" in row]
        for split in ("validation", "test"):
            knn = [(row["epoch"], row["evaluation"][split]["knn"], at_ms[row["epoch"]]) for row in staged]
            expected[f"{split}/knn"] = knn
            for row, entry in zip(staged, knn, strict=True):
                expected[f"{row['stage']}/{split}/knn"] = [entry]
        assert {metric: shown.history(trial.name, metric) for metric in expected} == expected
    assert shown.history("1 · c3d", "objective") == [(4, 0.4, int((BEGAN_AT + 8) * 1000))]
    assert "objective" not in shown.trials["2 · c3d"].data.metrics


def test_many_rows_are_more_than_one_request(uri: str, store: StoreFiles, tmp_path: Path) -> None:
    trial = make_trial(store, 1, "complete", 300)
    assert publish(uri, tmp_path, [trial]) == []
    assert [step for step, _, _ in Shown(uri).history(trial.name, "train/loss")] == list(range(1, 301))


def test_run_ids_are_those_of_mlflow(uri: str, store: StoreFiles, tmp_path: Path) -> None:
    ids = tmp_path / "mlflow.jsonl"
    append_jsonl(ids, {"uri": "http://elsewhere", "runs": {"parent": "kept"}})
    assert read_run_ids(ids, uri) == {}
    assert publish(uri, tmp_path, make_trials(store)) == []
    shown = Shown(uri)
    expected = {run.data.tags["kdtune.key"]: run.info.run_id for run in shown.trials.values()}
    assert read_run_ids(ids, uri) == {"parent": shown.parents[0].info.run_id, **expected}
    assert read_run_ids(ids, "http://elsewhere") == {"parent": "kept"}
    assert read_run_ids(tmp_path / "absent.jsonl", uri) == {}


def test_a_trial_of_no_sweep(uri: str, store: StoreFiles) -> None:
    trial, other = make_trial(store, 1, "complete", 2), make_trial(store, 2, "running", 1)
    for _ in range(2):
        assert publish_trial(uri, EXPERIMENT, trial) == []
    assert publish_trial(uri, EXPERIMENT, other) == []
    shown = Shown(uri)
    assert shown.parents == []
    assert len(shown.history(trial.name, "train/loss")) == 2
    assert shown.trials[trial.name].info.status == "FINISHED"
    assert shown.trials[other.name].info.status == "KILLED"


def test_an_unreachable_server_is_a_warning(
    store: StoreFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (problem,) = publish(f"http://127.0.0.1:{free_port()}", tmp_path, make_trials(store))
    assert "did not receive 5 trials" in problem
    assert "run the same command again" in problem
    assert capsys.readouterr().err.count("takes no results") == 1


@pytest.mark.slow
def test_the_sweeps_end_waits_as_long_as_trials_arrive(
    uri: str, store: StoreFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = kdtune.tracking.publish._send

    def slowly(view: View, trial: TrackedTrial) -> None:
        time.sleep(0.5)
        send(view, trial)

    monkeypatch.setattr(kdtune.tracking.publish, "_send", slowly)
    publisher = Publisher(uri, EXPERIMENT, SweepText(SWEEP), tmp_path / "mlflow.jsonl")
    trials = [make_trial(store, number, "complete", 1) for number in range(1, 31)]
    publisher.update(trials[0])
    wait_until(lambda: trials[0].key in read_run_ids(tmp_path / "mlflow.jsonl", uri), "the first trial is sent")
    for trial in trials[1:]:
        publisher.update(trial)
    assert publisher.close("complete", timeout_s=10) == []  # all of them take longer
    assert len(Shown(uri).trials) == 30


@pytest.mark.slow
def test_an_outage_loses_and_doubles_nothing(
    uri: str, store: StoreFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert publish(uri, tmp_path, []) == []  # The server wants a database.
    port, trial, late = free_port(), make_trial(store, 1, "running", 2), make_trial(store, 2, "running", 0)
    said: list[str] = []

    def has_said(text: str) -> bool:
        said.append(capsys.readouterr().err)
        return text in "".join(said)

    with served(uri, port) as address:
        publisher = Publisher(address, EXPERIMENT, SweepText(SWEEP), tmp_path / "mlflow.jsonl")
        publisher.update(trial)
        wait_until(lambda: trial.key in read_run_ids(tmp_path / "mlflow.jsonl", address), "the first rows are sent")
    write_epoch(trial, 3)
    publisher.update(trial)
    wait_until(lambda: has_said("takes no results"), "the outage is noticed")
    write_epoch(trial, 4)
    publisher.update(replace(trial, state="complete", objective=0.4))
    write_epoch(late, 1)
    publisher.update(late)
    with served(uri, port):
        wait_until(lambda: has_said("is back"), "the server's return is noticed")
        assert publisher.close("complete", timeout_s=120) == []
    shown = Shown(uri)
    assert len(shown.parents) == 1
    for metric in ("train/loss", "lr", "epoch_seconds"):
        assert [step for step, _, _ in shown.history(trial.name, metric)] == [1, 2, 3, 4]
    assert shown.history(trial.name, "objective") == [(4, 0.4, int((BEGAN_AT + 8) * 1000))]
    assert [step for step, _, _ in shown.history(late.name, "train/loss")] == [1]
    assert {run.info.status for run in (*shown.parents, *shown.trials.values())} == {"FINISHED", "KILLED"}
    assert "".join(said).count("takes no results") == 1
