"""A sweep as a library call: from any thread, twice, beside the caller's Ray; the process is left as it was."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from databases import empty_database
from helpers import link_clips, run_python

from kdtune.config.sweep import SweepConfig
from kdtune.errors import EXIT_OK, ConfigError
from kdtune.execute.backend import backend_of
from kdtune.execute.run import run_sweep
from kdtune.history.events import EpochEnd, Event
from kdtune.history.reading import read_history
from kdtune.history.sweep import SweepHistory
from kdtune.store import StoreFiles
from kdtune.train.session import Session


@pytest.fixture(scope="session")
def small(sweep_form: dict[str, Any]) -> dict[str, Any]:
    """A raw sweep of one control and two candidates."""
    form = {**sweep_form, "name": "small", "teachers": {}, "prune": {}, "objective": {"metric": "knn"}}
    return {**form, "search": {"space": {"alpha": [0.1, 1.0]}, "sampler": "grid"}}


#: Run sweeps in a thread of a process that has imported nothing of kdtune's; print what has changed, and what was said.
SCRIPT = """
import json, sys, threading
sys.path.insert(0, "tests")
from process_state import process_state

before = process_state()
from kdtune.execute.run import run_sweep
from kdtune.store import StoreFiles

form, store, uri, address = json.loads(ARGUMENTS)
found = []

def run(**options):
    def call():
        try:
            done = run_sweep(form, StoreFiles(store), tracking=uri, **options)
            found.append([done.exit_code, done.trained, done.published])
        except Exception as error:
            found.append(str(error))
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()

def changed():
    return sorted(before ^ process_state())

run(backend="inprocess")
run(backend="inprocess")
differences = [changed()]
if address:
    import ray
    before = process_state()
    run(sets=["search.space={alpha: [0.1, 0.3, 1.0]}"], address=address)
    differences.append(changed())
    from kdtune.execute.cluster.ray_private import loopback
    with loopback(address):
        ray.init(address=address, log_to_driver=False)
    before = process_state()
    run(sets=["search.space={alpha: [0.1, 0.3, 0.7, 1.0]}"])
    run(sets=["search.space={alpha: [0.1, 0.3, 0.7, 1.0]}"], address=address)
    differences.append(changed())
    found.append(ray.is_initialized())
print(json.dumps([found, differences]))
"""


@pytest.mark.parametrize("with_ray", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_call_from_a_thread_leaves_the_process_as_it_was(
    with_ray: bool, small: dict[str, Any], prepared: Session, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    link_clips(prepared.store.root, tmp_path / "runs")
    address = request.getfixturevalue("ray_address") if with_ray else None
    uri = empty_database(tmp_path / "mlflow.db")
    arguments = json.dumps([small, str(tmp_path / "runs"), uri, address])
    done = run_python(SCRIPT.replace("ARGUMENTS", repr(arguments)))
    found, differences = json.loads(done.stdout)
    assert found[:2] == [[EXIT_OK, 3, True], [EXIT_OK, 0, True]]
    if with_ray:
        assert found[2] == [EXIT_OK, 1, True]
        assert f"this process is connected to the Ray at {address}" in found[3]
        assert found[4:] == [[EXIT_OK, 1, True], True], "the caller's Ray is used, and stays"
    for difference in differences:
        assert difference == []
    assert "kdtune" not in done.stderr, "messages go to the logger alone"


@pytest.mark.parametrize(
    ("backend", "raised"),
    [
        ("inprocess", KeyboardInterrupt),
        pytest.param("ray", KeyboardInterrupt, marks=pytest.mark.slow),
        pytest.param("ray", ZeroDivisionError, marks=pytest.mark.slow),
    ],
)
def test_control_c_or_a_callback_ends_a_call_with_its_books_closed_and_the_next_call_resumes(
    backend: str,
    raised: type[BaseException],
    small: dict[str, Any],
    prepared: Session,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """No backend takes what a callback raises for a trial's failure."""
    link_clips(prepared.store.root, tmp_path / "runs")
    address = request.getfixturevalue("ray_address") if backend == "ray" else None
    store, sweep = StoreFiles(tmp_path / "runs"), SweepConfig.model_validate(small)
    events: list[Event] = []

    def interrupt(event: Event) -> None:
        events.append(event)
        if isinstance(event, EpochEnd):
            1 / 0 if raised is ZeroDivisionError else signal.raise_signal(signal.SIGINT)

    on = backend_of(backend, address)
    with pytest.raises(raised):
        run_sweep(sweep, store, backend=on, tracking=False, on_event=interrupt)
    assert read_history(store, "small").counts()["pending"] > 0
    files = store.sweep("small")
    assert not files.driver.exists()
    assert not files.stop.exists()
    assert not files.mlflow.exists()
    events.clear()
    end = run_sweep("small", store, backend=on, tracking=False, on_event=events.append)  # the name of a stored one
    assert (end.sweep, end.exit_code) == ("small", EXIT_OK)
    history = read_history(store, "small")
    assert SweepHistory(history.record, events).counts() == history.counts() == {**history.counts(), "complete": 3}


def test_a_sweep_built_in_python_is_checked_as_a_file_is(small: dict[str, Any], tmp_path: Path) -> None:
    sweep = SweepConfig.model_validate({**small, "objective": {"metric": "top1"}})
    with pytest.raises(ConfigError, match=r"objective\.metric"):
        run_sweep(sweep, StoreFiles(tmp_path), backend="inprocess")
    with pytest.raises(ConfigError, match="was not found"):
        run_sweep("nowhere", StoreFiles(tmp_path))
