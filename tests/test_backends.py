"""What all backends have in common: candidates, prunings, bits, ledger, budgets, stops, resume, retries, failures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import link_clips, sweep_results

from kdtune.errors import EXIT_FAILED_TRIALS, EXIT_INTERRUPTED, EXIT_OK, UserError
from kdtune.execute.backend import Backend, backend_of
from kdtune.execute.books import Ending
from kdtune.history.events import Ended, EpochEnd, Event, Started
from kdtune.store import StoreFiles
from kdtune.store.files import read_json, read_jsonl
from kdtune.sweep.stopping import Cancel
from kdtune.train.checkpoint import read_checkpoint
from kdtune.train.session import Session
from sweeps import outcome, run


@pytest.fixture(params=["inprocess", "ray"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """Each backend; without Ray for the one that does not need it."""
    if request.param == "ray":
        yield backend_of("ray", request.getfixturevalue("ray_address"))
        return
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)  # importing it fails
        yield backend_of("inprocess")


def asked_and_ended(store: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the ledger's last row on each group's question and end, without who trained it."""
    files = StoreFiles(store).sweep("tiny")
    rows = read_jsonl(files.folder / read_json(files.sweep)["ledger"])
    return {(row["event"], row["group"]): {**row, "cached": None} for row in rows}


@pytest.mark.parametrize("backend", ["inprocess", pytest.param("ray", marks=pytest.mark.slow)], indirect=True)
def test_a_sweep_that_a_budget_and_a_request_end_resumes_to_the_same_results(
    backend: Backend, swept: tuple[Path, Ending], prepared: Session, sweep_file: Path, tmp_path: Path
) -> None:
    """The reference is an undisturbed sweep in this process, without loader workers."""
    link_clips(prepared.store.root, tmp_path)
    end, said = run(sweep_file, tmp_path, backend, ("stop.trials=3",))
    assert (end.exit_code, end.trained) == (EXIT_OK, 3), said
    assert any(note.startswith("stop.trials: 3 trainings") for note in end.notes)
    cancel = Cancel()

    def seen(event: Event) -> None:
        if isinstance(event, EpochEnd) and "candidate" in event.group:
            cancel.ask()

    end, said = run(sweep_file, tmp_path, backend, (), cancel, seen)
    assert end.exit_code == EXIT_INTERRUPTED, said
    assert not cancel.interrupted
    store = StoreFiles(tmp_path)
    begun = [files for files in store.trials() if files.rows() and files.result() is None]
    assert all(read_checkpoint(files.checkpoint)["epoch"] == len(files.rows()) for files in begun)
    assert not store.sweep("tiny").stop.exists()
    assert not store.sweep("tiny").driver.exists()
    end, said = run(sweep_file, tmp_path, backend, ("resources.workers=1",))
    assert (end.exit_code, end.notes) == (EXIT_OK, []), said
    assert end.found >= 3
    assert outcome(tmp_path) == outcome(swept[0])
    assert asked_and_ended(tmp_path) == asked_and_ended(swept[0])


def failing(sweep_form: dict[str, Any], folder: Path) -> Path:
    """Write the file of a sweep whose candidate 0 has a learning rate that makes every loss overflow."""
    form = {**sweep_form, "name": "failing", "teachers": {}, "prune": {}, "objective": {"metric": "knn"}}
    search = {"space": {"optimizer.lr": [1.0e30, 0.02]}, "sampler": "grid", "window": 2}
    file = folder / "failing.yaml"
    file.write_text(yaml.safe_dump({**form, "search": search, "resources": {"retries": 1}}))
    return file


@pytest.mark.parametrize("backend", ["inprocess", pytest.param("ray", marks=pytest.mark.slow)], indirect=True)
def test_a_failing_trial_is_retried_then_marked_within_a_budget_and_the_sweep_continues(
    backend: Backend, sweep_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    """A budget of trials does not stop retries of what has started."""
    link_clips(prepared.store.root, tmp_path)
    file = failing(sweep_form, tmp_path)
    events: list[Event] = []
    end, said = run(file, tmp_path, backend, ("stop.trials=2",), seen=events.append)
    trials = sweep_results(StoreFiles(tmp_path), "failing")["trials"]
    assert [trial["state"] for trial in trials] == ["complete", "failed", "pending"], said
    started = [event.group for event in events if isinstance(event, Started)]
    assert started == ["all · control", "all · candidate 0", "all · candidate 0"]
    assert end.trained == 2
    assert end.exit_code == EXIT_FAILED_TRIALS
    assert "not finite at epoch 1" in trials[1]["error"]
    assert any("failed: the loss is not finite" in line for line in said)
    end, said = run(file, tmp_path, backend)
    trials = sweep_results(StoreFiles(tmp_path), "failing")["trials"]
    assert [trial["state"] for trial in trials] == ["complete", "failed", "complete"], said


def test_what_a_machine_lacks_is_refused_before_anything_is_made(
    backend: Backend, sweep_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as refused:
        run(sweep_file, tmp_path, backend, ("resources.cpu=30000", "resources.memory=100000"))
    assert "resources.cpu: a trial asks for 30000, but no machine has more than" in str(refused.value)
    assert "resources.memory: a trial asks for 100000" in str(refused.value)
    assert StoreFiles(tmp_path).trials() == []
    with pytest.raises(UserError, match="trains in this process, but got the cluster"):
        backend_of("inprocess", "HEAD:6379")


@pytest.mark.slow
def test_a_trial_that_runs_out_of_memory_is_tried_alone_and_then_infeasible_with_advice(
    backend: Backend, sweep_form: dict[str, Any], tmp_path: Path
) -> None:
    # One convolution of 100,000 channels has more weights than any machine's memory holds.
    form = {**sweep_form, "name": "wide", "teachers": {}, "prune": {}, "objective": {"metric": "knn"}}
    search = {"space": {"student.width": [100_000, 4, 6]}, "sampler": "grid", "window": 3}
    file = tmp_path / "wide.yaml"
    file.write_text(yaml.safe_dump({**form, "search": search, "resources": {"retries": 1}}))
    events: list[Event] = []
    end, _ = run(file, tmp_path, backend, seen=events.append)
    assert end.exit_code == EXIT_OK, "the search has learned from it"
    trials = {t["candidate"]: t for t in sweep_results(StoreFiles(tmp_path), "wide")["trials"]}
    assert [trials[n]["state"] for n in (None, 0, 1, 2)] == ["complete", "infeasible", "complete", "complete"]
    assert "can't allocate memory" in trials[0]["error"]
    assert "failed alone" in trials[0]["error"]
    assert "student.width" in trials[0]["error"]
    began = [event.group for event in events if isinstance(event, Started)]
    assert began.count("all · candidate 0") == 2
    running: list[str] = []  # when it begins for the second time
    for event in events[: max(i for i, event in enumerate(events) if event == Started("all · candidate 0"))]:
        if isinstance(event, Started):
            running.append(event.group)
        elif isinstance(event, Ended) and event.group in running:
            running.remove(event.group)
    assert running == ["all · candidate 0"], "it is the one that failed, and nothing else runs"
