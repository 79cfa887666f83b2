"""MLflow over HTTP that is stopped, frozen, slow, emptied or loses answers: nothing is missing or doubled at the end.

The tests count in the server's own database, while a sweep keeps training.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT
from outages import Database, Proxy, Server, python
from servers import free_port, wait_until
from tracked import EXPERIMENT, STAGES, SWEEP, make_trial, write_epoch

from kdtune.errors import EXIT_OK
from kdtune.store import StoreFiles
from kdtune.store.files import read_jsonl
from kdtune.tracking.publish import Publisher, TrackedTrial
from kdtune.tracking.sweep_text import SweepText

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server(free_port())
    yield started
    started.kill()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    between = Proxy(server.port)
    yield between
    between.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a request to a frozen server fail soon."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")


def metrics_of(trial: TrackedTrial) -> int:
    """Count by hand: five losses, rate and seconds per epoch; at a stage, three accuracies of two splits, twice."""
    epochs = {row["epoch"] for row in trial.files.rows()}
    return 7 * len(epochs) + 12 * len(epochs & STAGES.keys()) + (trial.objective is not None)


def assert_whole(database: Database, trials: list[TrackedTrial]) -> None:
    """Assert that MLflow has the sweep's run and one per trial, each with all of its rows exactly once."""
    assert database.count("runs") == len(trials) + 1
    assert database.tag("kdtune.key") == sorted(trial.key for trial in trials)
    assert database.count("metrics") == sum(map(metrics_of, trials))
    assert database.count("params") == sum(len(trial.params) for trial in trials)
    assert "RUNNING" not in database.statuses()


def publisher(address: str, folder: Path) -> Publisher:
    return Publisher(address, EXPERIMENT, SweepText(SWEEP, "Which?", "name: lambda_tau\n"), folder / "mlflow.jsonl")


def is_there(database: Database, *trials: TrackedTrial) -> bool:
    return {trial.key for trial in trials} <= set(database.tag("kdtune.key"))


def test_lost_answers_double_nothing(server: Server, proxy: Proxy, store: StoreFiles, tmp_path: Path) -> None:
    """What a server carried out without answering is sent again: a run, a batch, the sweep's own run."""
    server.start(tmp_path / "db" / "mlflow.db")
    database, trials = Database(tmp_path / "db" / "mlflow.db"), [make_trial(store, n, "complete", 4) for n in (1, 2, 3)]
    proxy.loses = Counter({"runs/create": 7, "log-batch": 5, "experiments/create": 1, "runs/update": 3, "set-tag": 1})
    sender = publisher(proxy.address, tmp_path)
    for trial in trials:
        sender.update(trial)
    wait_until(lambda: sum(proxy.loses.values()) <= 1, "the answers are lost")
    assert sender.close("complete", timeout_s=60) == []
    assert_whole(database, trials)
    deleted = database.ask("SELECT count(*) FROM runs WHERE lifecycle_stage = 'deleted'")
    assert deleted[0][0] > 0, "some were made twice"


def test_a_frozen_server_holds_up_nobody_and_gets_everything_once(
    server: Server, store: StoreFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.start(tmp_path / "db" / "mlflow.db")
    database, trials = Database(tmp_path / "db" / "mlflow.db"), [make_trial(store, n, "running", 1) for n in (1, 2, 3)]
    sender = publisher(server.address, tmp_path)
    sender.update(trials[0])
    wait_until(lambda: is_there(database, trials[0]), "the first trial is sent")
    server.freeze()
    said: list[str] = []
    for trial in trials:
        for epoch in (2, 3, 4):
            write_epoch(trial, epoch)
            sender.update(trial)
    wait_until(lambda: said.append(capsys.readouterr().err) or "takes no results" in "".join(said), "it is noticed")
    server.thaw()  # and now carries out the requests whose answers nobody awaits any more
    done = [replace(trial, state="complete", objective=0.4) for trial in trials]
    for trial in done:
        sender.update(trial)
    assert sender.close("complete", timeout_s=60) == []
    assert_whole(database, done)


def test_a_slow_server_gets_everything_once(
    server: Server, proxy: Proxy, store: StoreFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server is first slower than the client's timeout, then only slow."""
    server.start(tmp_path / "db" / "mlflow.db")
    database, trials = Database(tmp_path / "db" / "mlflow.db"), [make_trial(store, n, "complete", 4) for n in (1, 2)]
    sender = publisher(proxy.address, tmp_path)
    proxy.delay_s = 0.3
    sender.update(trials[0])
    wait_until(lambda: is_there(database, trials[0]), "the first trial is sent")
    proxy.delay_s = 2.5
    sender.update(trials[1])
    said: list[str] = []
    wait_until(lambda: said.append(capsys.readouterr().err) or "takes no results" in "".join(said), "it is noticed")
    proxy.delay_s = 0.3
    assert sender.close("complete", timeout_s=60) == []
    assert_whole(database, trials)


def test_a_server_that_comes_back_empty_gets_everything_again(
    server: Server, store: StoreFiles, tmp_path: Path
) -> None:
    before, after = (Database(tmp_path / name / "mlflow.db") for name in ("before", "after"))
    server.start(before.path)
    first, second = make_trial(store, 1, "complete", 4), make_trial(store, 2, "running", 1)
    sender = publisher(server.address, tmp_path)
    sender.update(first)
    sender.update(second)
    wait_until(lambda: is_there(before, first, second), "the first trials are sent")
    server.kill()
    server.start(after.path)
    write_epoch(second, 2)
    second = replace(second, state="complete", objective=0.4)
    sender.update(second)
    assert sender.close("complete", timeout_s=60) == []
    assert_whole(after, [first, second])


# ---- a whole sweep ---------------------------------------------------------------------------------------------------


def counted_by_hand(store: StoreFiles, keys: set[str], objectives: int) -> int:
    """Count the metrics in these trials' files: each number of the rows, and a stage's accuracies again by its name."""
    total = objectives
    for key in keys:
        for row in store.trial(key).rows():
            total += len(row["train"]) + len(row.get("validation", {})) + 2  # rate and seconds
            total += sum(map(len, row.get("evaluation", {}).values())) * (2 if "stage" in row else 1)
        total += sum(len(line) - 2 for line in read_jsonl(store.trial(key).machine))  # without epoch and time
    return total


def test_a_sweep_trains_on_through_every_outage_and_all_of_it_arrives(
    server: Server, proxy: Proxy, sweep_form: dict[str, Any], tmp_path: Path
) -> None:
    file, store = tmp_path / "tiny.yaml", StoreFiles(tmp_path / "runs")
    file.write_text(yaml.safe_dump({**sweep_form, "tracking": {"register": "tiny-students"}}, sort_keys=False))
    before, after = (Database(tmp_path / name / "mlflow.db") for name in ("before", "after"))
    server.start(before.path)
    command = python("-m", "kdtune", "sweep", file, "--store", store.root, "--backend", "inprocess")
    environment = {**os.environ, "MLFLOW_TRACKING_URI": proxy.address}
    with (tmp_path / "said").open("w") as said:
        sweep = subprocess.Popen(command, env=environment, stdout=said, stderr=said, cwd=ROOT)

    def ended() -> dict[str, dict[str, Any]]:
        ledgers = (store.root / "sweeps" / "tiny").glob("ledger_*.jsonl")
        return {row["group"]: row for path in ledgers for row in read_jsonl(path) if row["event"] == "ended"}

    def more_than(count: int) -> None:
        wait_until(lambda: len(ended()) > count or sweep.poll() is not None, f"more than {count} jobs have ended")

    try:
        wait_until(lambda: bool(before.tag("kdtune.key")), "the first trial is in MLflow")
        server.freeze()
        more_than(len(ended()) + 1)  # while nobody answers
        server.thaw()
        proxy.delay_s = 0.5
        more_than(len(ended()))
        server.kill()
        more_than(len(ended()))
        proxy.delay_s = 0.0
        sweep.send_signal(signal.SIGSTOP)  # its last trials may take less time than a server needs to start
        server.start(after.path)
        sweep.send_signal(signal.SIGCONT)
        assert sweep.wait(timeout=240) == EXIT_OK, (tmp_path / "said").read_text()
    finally:
        sweep.kill()
        sweep.wait()
    assert "note:" not in (tmp_path / "said").read_text()
    groups = ended()
    assert len(groups) == 2 + 2 + 8
    assert {row["state"] for row in groups.values()} <= {"complete", "pruned"}, "none failed"
    keys = {path.name for path in (store.root / "trials").iterdir()}
    assert after.count("runs") == 1 + len(keys)
    assert after.tag("kdtune.key") == sorted(keys)
    objectives = sum(bool(row["values"]) for row in groups.values())
    best = 2 * 2  # the best value and its gain, of both blocks, in the sweep's own run
    assert after.count("metrics") == counted_by_hand(store, keys, objectives) + best
    # Besides what is not default (at least epochs, batch, rate and frames): six columns, seed, control, block and key.
    params = Counter(name for (name,) in after.ask("SELECT key FROM params"))
    assert max(params.values()) <= len(keys), "none is doubled"
    assert sum(count == len(keys) for count in params.values()) >= 10 + 4
    assert {"epochs", "optimizer.batch", "optimizer.lr", "clip.frames"} <= {p for p in params if params[p] == len(keys)}
    assert after.statuses() == Counter({"FINISHED": 1 + len(keys)})
    models = after.ask("SELECT source_run_id FROM logged_models WHERE lifecycle_stage = 'active'")
    assert len(set(models)) == len(models) == 4, "the best and the control of both blocks"
    aliases = after.ask("SELECT alias FROM registered_model_aliases WHERE name = 'tiny-students' ORDER BY alias")
    assert aliases == [("best-fraction-0-5",), ("best-fraction-1-0",)]
    inputs = after.ask("SELECT destination_id FROM inputs WHERE source_type = 'DATASET'")
    assert Counter(Counter(inputs).values()) == Counter({3: len(keys)}), "training, validation and test of each"
