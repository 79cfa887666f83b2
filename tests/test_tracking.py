"""The publisher against real MLflow: SQLite databases, and a server that goes away and comes back."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from servers import free_port, served, wait_until

import kdtune.tracking.publish
from kdtune.errors import UserError
from kdtune.files import append_jsonl, write_json
from kdtune.store import Store
from kdtune.tracking.location import (
    DEFAULT_URI,
    database_path,
    prepare_environment,
    serve,
    tracking_uri,
    ui_command,
)
from kdtune.tracking.publish import Publisher, TrackedTrial, publish_trial, read_run_ids
from kdtune.tracking.sweep_text import SweepText

if TYPE_CHECKING:
    from kdtune.tracking.view import View

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENT, SWEEP = "experiment", "lambda_tau"
STAGES = {2: "early", 4: "late"}
BEGAN_AT = 1763683200.25


def write_epoch(trial: TrackedTrial, epoch: int) -> None:
    """Append the row that the trainer would, with figures that tell trial and epoch."""
    accuracy = 0.1 * epoch + 0.01 * len(trial.name)
    row: dict = {
        "epoch": epoch,
        "train": {"loss": 3.0 / epoch, "pretext": 1.6, "contrast": 0.9, "distill": 0.0, "pretext_accuracy": accuracy},
        "lr": 0.01,
        "seconds": 2.0,
        "at": BEGAN_AT + 2.0 * epoch,
    }
    if epoch in STAGES:
        row["stage"] = STAGES[epoch]
        row["evaluation"] = {
            split: {"pretext": 0.3, "knn": accuracy, "linear": 0.5} for split in ("validation", "test")
        }
    append_jsonl(trial.files.epochs, row)


def make_trial(store: Store, number: int, state: str, epochs: int) -> TrackedTrial:
    """A trial of candidate `number` with these many epochs on disk, as a worker would leave it."""
    files = store.trial(f"{number:064x}")
    params = {"teacher": "c3d", "lambda": 0.5 * number, "tau": None, "fraction": 1.0, "key": files.key}
    trial = TrackedTrial(files, f"{number} · c3d", params, {"kdtune.candidate": str(number)}, state)
    write_json(files.config, {"seed": number})
    for epoch in range(1, epochs + 1):
        write_epoch(trial, epoch)
    if state == "complete":
        files.write_result({"weights_sha256": f"{number:064x}", "seconds": 8.0, "profile": {"device": "cpu"}})
        trial = replace(trial, objective=0.4)
    if state == "failed":
        files.write_failure("the loss is not finite at epoch 2")
    return trial


def make_trials(store: Store) -> list[TrackedTrial]:
    return [
        make_trial(store, 1, "complete", 4),
        make_trial(store, 2, "pruned", 2),
        make_trial(store, 3, "failed", 1),
        make_trial(store, 4, "running", 1),
        make_trial(store, 5, "pending", 0),
    ]


def publish(uri: str, folder: Path, trials: list[TrackedTrial], state: str = "complete") -> list[str]:
    publisher = Publisher(
        uri, EXPERIMENT, SweepText(SWEEP, "Which one is best?", "name: lambda_tau\n"), folder / "mlflow.jsonl"
    )
    for trial in trials:
        publisher.update(trial)
    return publisher.close(state, "The third.", timeout_s=120)


class Shown:
    """What MLflow has, read by a client of its own."""

    def __init__(self, uri: str) -> None:
        prepare_environment()
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=uri)
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        found = [] if experiment is None else self.client.search_runs([experiment.experiment_id])
        self.parents = [run for run in found if "kdtune.sweep" in run.data.tags]
        self.trials = {run.info.run_name: run for run in found if "kdtune.key" in run.data.tags}
        assert len(found) == len(self.parents) + len(self.trials)

    def history(self, name: str, metric: str) -> list[tuple[int, float, int]]:
        """Step, value and milliseconds of everything logged under this name."""
        logged = self.client.get_metric_history(self.trials[name].info.run_id, metric)
        return [(entry.step, entry.value, entry.timestamp) for entry in logged]

    def everything(self) -> dict:
        """All that a second sending must not change: every metric's history, params, tags, statuses and ends."""
        return {
            name: (
                {metric: self.history(name, metric) for metric in sorted(run.data.metrics)},
                run.data.params,
                {tag: value for tag, value in run.data.tags.items() if tag != "mlflow.parentRunId"},
                run.info.status,
                run.info.start_time,
            )
            for name, run in self.trials.items()
        }


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/mlflow/mlflow.db"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def test_a_sweep_as_mlflow_shows_it(uri: str, store: Store, tmp_path: Path) -> None:
    assert publish(uri, tmp_path, make_trials(store)) == []
    shown = Shown(uri)

    (parent,) = shown.parents
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["mlflow.note.content"] == "Which one is best?\n\nThe third."
    assert [entry.path for entry in shown.client.list_artifacts(parent.info.run_id)] == ["sweep.yaml"]
    assert {run.data.tags["mlflow.parentRunId"] for run in shown.trials.values()} == {parent.info.run_id}

    # The pending one has nothing to show yet; the running one was interrupted by the sweep's end.
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
    assert json.loads(config.read_text()) == {"seed": 1}


def test_metric_histories_are_the_rows(uri: str, store: Store, tmp_path: Path) -> None:
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


def test_running_again_doubles_nothing(uri: str, store: Store, tmp_path: Path) -> None:
    trials = make_trials(store)
    assert publish(uri, tmp_path, trials) == []
    before, ids = Shown(uri), read_run_ids(tmp_path / "mlflow.jsonl", uri)
    assert publish(uri, tmp_path, trials) == []
    after = Shown(uri)
    assert after.everything() == before.everything()
    assert [run.info.run_id for run in after.parents] == [run.info.run_id for run in before.parents]
    assert read_run_ids(tmp_path / "mlflow.jsonl", uri) == ids
    assert len((tmp_path / "mlflow.jsonl").read_text().splitlines()) == 1


def test_a_run_that_has_everything_is_not_written_again(uri: str, store: Store, tmp_path: Path) -> None:
    def found(cached: str) -> list[TrackedTrial]:
        return [replace(trial, tags={**trial.tags, "kdtune.cached": cached}) for trial in trials]

    def written() -> list[tuple[str, int]]:
        artifacts = tmp_path / "mlflow" / "artifacts"
        return sorted((str(path), path.stat().st_mtime_ns) for path in artifacts.glob("**/config.json"))

    trials = make_trials(store)[:3]
    assert publish(uri, tmp_path, found("false")) == []
    before, configs = Shown(uri).everything(), written()
    assert len(configs) == 3
    assert publish(uri, tmp_path, found("true")) == []  # as when the sweep's command is run again
    assert Shown(uri).everything() == before
    assert written() == configs


def test_a_pruned_trial_that_another_sweep_goes_on_with_shows_its_rows(uri: str, store: Store, tmp_path: Path) -> None:
    trial = make_trial(store, 1, "pruned", 2)
    assert publish(uri, tmp_path, [trial]) == []
    write_epoch(trial, 3)
    assert publish(uri, tmp_path, [trial]) == []
    shown = Shown(uri)
    assert [step for step, _, _ in shown.history(trial.name, "train/loss")] == [1, 2, 3]
    assert shown.trials[trial.name].data.tags["kdtune.epochs"] == "3"


def test_an_interrupted_trial_goes_on_in_its_run(uri: str, store: Store, tmp_path: Path) -> None:
    trial = make_trial(store, 1, "running", 2)
    assert publish(uri, tmp_path, [trial], "interrupted") == []
    first = Shown(uri)
    assert [run.info.status for run in (*first.parents, *first.trials.values())] == ["KILLED", "KILLED"]
    write_epoch(trial, 3)
    write_epoch(trial, 4)
    assert publish(uri, tmp_path, [replace(trial, state="complete")]) == []
    second = Shown(uri)
    assert [step for step, _, _ in second.history(trial.name, "train/loss")] == [1, 2, 3, 4]
    assert second.trials[trial.name].info.run_id == first.trials[trial.name].info.run_id
    assert second.trials[trial.name].info.status == second.parents[0].info.status == "FINISHED"


def test_a_deleted_database_is_filled_anew(uri: str, store: Store, tmp_path: Path) -> None:
    trials = make_trials(store)
    assert publish(uri, tmp_path, trials) == []
    before = Shown(uri).everything()
    database = database_path(uri)
    assert database is not None
    database.unlink()
    assert publish(uri, tmp_path, trials) == []
    shown = Shown(uri)
    assert shown.everything() == before
    ids = {run.data.tags["kdtune.key"]: run.info.run_id for run in shown.trials.values()}
    assert read_run_ids(tmp_path / "mlflow.jsonl", uri) == {"parent": shown.parents[0].info.run_id, **ids}


def test_a_database_deleted_in_mid_sweep_is_filled_anew(uri: str, store: Store, tmp_path: Path) -> None:
    first, second = make_trial(store, 1, "complete", 4), make_trial(store, 2, "running", 1)
    publisher = Publisher(uri, EXPERIMENT, SweepText(SWEEP), tmp_path / "mlflow.jsonl")
    publisher.update(first)
    wait_until(lambda: first.key in read_run_ids(tmp_path / "mlflow.jsonl", uri), "the first trial is sent")
    database = database_path(uri)
    assert database is not None
    database.unlink()
    publisher.update(second)
    assert publisher.close("complete", timeout_s=120) == []
    shown = Shown(uri)
    assert len(shown.parents) == 1
    assert len(shown.history(first.name, "train/loss")) == 4
    assert len(shown.history(second.name, "train/loss")) == 1


def test_a_run_deleted_in_the_pages_comes_back(uri: str, store: Store, tmp_path: Path) -> None:
    trials = make_trials(store)
    assert publish(uri, tmp_path, trials) == []
    shown = Shown(uri)
    shown.client.delete_run(shown.trials["1 · c3d"].info.run_id)
    assert publish(uri, tmp_path, trials) == []
    assert Shown(uri).everything() == shown.everything()


def test_a_changed_param_makes_the_run_anew(uri: str, store: Store, tmp_path: Path) -> None:
    trial = make_trial(store, 1, "complete", 4)
    assert publish(uri, tmp_path, [trial]) == []
    renamed = replace(trial, params={**trial.params, "teacher": "c3d_wide"})
    assert publish(uri, tmp_path, [renamed]) == []
    shown = Shown(uri)
    assert shown.trials[trial.name].data.params["teacher"] == "c3d_wide"
    assert [step for step, _, _ in shown.history(trial.name, "train/loss")] == [1, 2, 3, 4]


def test_what_a_killed_driver_left_running_is_ended(uri: str, store: Store, tmp_path: Path) -> None:
    trial = make_trial(store, 1, "running", 1)
    assert publish(uri, tmp_path, [trial]) == []
    shown = Shown(uri)
    shown.client.update_run(shown.trials[trial.name].info.run_id, status="RUNNING")
    assert publish(uri, tmp_path, []) == []
    assert Shown(uri).trials[trial.name].info.status == "KILLED"


def test_many_rows_are_more_than_one_request(uri: str, store: Store, tmp_path: Path) -> None:
    trial = make_trial(store, 1, "complete", 300)
    assert publish(uri, tmp_path, [trial]) == []
    assert [step for step, _, _ in Shown(uri).history(trial.name, "train/loss")] == list(range(1, 301))


def test_run_ids_are_those_of_mlflow(uri: str, store: Store, tmp_path: Path) -> None:
    ids = tmp_path / "mlflow.jsonl"
    append_jsonl(ids, {"uri": "http://elsewhere", "runs": {"parent": "kept"}})
    assert read_run_ids(ids, uri) == {}
    assert publish(uri, tmp_path, make_trials(store)) == []
    shown = Shown(uri)
    expected = {run.data.tags["kdtune.key"]: run.info.run_id for run in shown.trials.values()}
    assert read_run_ids(ids, uri) == {"parent": shown.parents[0].info.run_id, **expected}
    assert read_run_ids(ids, "http://elsewhere") == {"parent": "kept"}
    assert read_run_ids(tmp_path / "absent.jsonl", uri) == {}


def test_a_trial_of_no_sweep(uri: str, store: Store) -> None:
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
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (problem,) = publish(f"http://127.0.0.1:{free_port()}", tmp_path, make_trials(store))
    assert "has not got 5 trials" in problem
    assert "run the same command again" in problem
    assert capsys.readouterr().err.count("takes no results") == 1


@pytest.mark.slow
def test_the_sweeps_end_waits_as_long_as_trials_arrive(
    uri: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    uri: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
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


def test_importing_the_publisher_does_not_import_mlflow() -> None:
    code = "import sys, kdtune.tracking.publish, kdtune.tracking.location; sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_mlflow_folder_does_not_hide_the_library() -> None:
    assert list((ROOT / "mlflow").glob("**/*.py")) == []
    code = "import importlib.util; print(importlib.util.find_spec('mlflow').origin)"
    found = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.strip().endswith("__init__.py")


def test_location(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri() == DEFAULT_URI
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
    assert tracking_uri() == "http://localhost:1"
    assert database_path("http://localhost:1") is None
    assert database_path(DEFAULT_URI) == Path("mlflow/mlflow.db").absolute()
    command = ui_command(DEFAULT_URI, port=5001)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--allowed-hosts") + 1] == "localhost:5001,127.0.0.1:5001"


def test_serve_refuses_what_it_cannot_serve(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no database"):
        serve(uri)
    with pytest.raises(UserError, match="already served"):
        serve("http://127.0.0.1:1")
    assert publish(uri, tmp_path, []) == []
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        with pytest.raises(UserError, match="cannot be used"):
            serve(uri, owner.getsockname()[1])
