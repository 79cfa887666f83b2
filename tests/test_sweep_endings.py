"""Early ends of a sweep (killed, interrupted, out of budget or memory), after which the same command resumes it."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import link_clips

from kdtune.commands.interrupts import Interrupts
from kdtune.errors import EXIT_INTERRUPTED, EXIT_OK, UserError
from kdtune.execute.books import Ending
from kdtune.execute.in_process import InProcess
from kdtune.store import StoreFiles
from kdtune.train.checkpoint import read_checkpoint
from kdtune.train.session import Session
from kdtune.watch.live import Plain
from sweeps import outcome, run, started


def test_a_driver_interrupted_then_killed_in_mid_sweep_resumes_to_the_same_results(
    swept: tuple[Path, Ending], prepared: Session, sweep_file: Path, ray_address: str, tmp_path: Path
) -> None:
    """Two drivers train through Ray, two trials at a time, the last one and the reference in this process."""
    link_clips(prepared.store.root, tmp_path)
    process = started(sweep_file, tmp_path, ray_address, until=("teacher", "early"))
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate()
    assert (process.returncode, "Traceback" in rest) == (EXIT_INTERRUPTED, False), rest
    process = started(sweep_file, tmp_path, ray_address, until=("candidate", "early"))
    with pytest.raises(UserError, match=f"another driver runs it .*process {process.pid}.*kdtune status tiny"):
        run(sweep_file, tmp_path, ray_address)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    end, said = run(sweep_file, tmp_path, InProcess())
    assert end.exit_code == EXIT_OK, said
    assert end.found > 0
    assert outcome(tmp_path) == outcome(swept[0])
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 1 + 12, "one parent and one run a trial, none doubled"
    assert {r.info.status for r in runs} == {"FINISHED"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_with_130_and_the_same_command_resumes(
    swept: tuple[Path, Ending], sweep_file: Path, ray_address: str, tmp_path: Path, number: signal.Signals
) -> None:
    process = started(sweep_file, tmp_path, ray_address, until=("early",))
    process.send_signal(number)
    _, rest = process.communicate()
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert "run the same command again to resume" in rest
    end, _ = run(sweep_file, tmp_path, ray_address)
    assert end.exit_code == EXIT_OK
    assert outcome(tmp_path) == outcome(swept[0])


@pytest.mark.slow
def test_an_interrupt_that_a_library_swallows_ends_the_sweep_all_the_same(
    swept: tuple[Path, Ending], sweep_file: Path, ray_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Plain.say

    def interrupted(watcher: Plain, text: str) -> None:
        line(watcher, text)
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(Plain, "say", interrupted)
        with Interrupts() as interrupts:
            end, said = run(sweep_file, tmp_path, ray_address, cancel=interrupts)
    assert end.exit_code == EXIT_INTERRUPTED, said
    assert end.trained < swept[1].trained
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.slow
def test_an_interrupt_lets_the_trials_write_their_checkpoints(
    swept: tuple[Path, Ending], sweep_file: Path, ray_address: str, tmp_path: Path
) -> None:
    """Every running trial has all of its steps in its checkpoint: none of them is trained again."""
    process = started(sweep_file, tmp_path, ray_address, until=("candidate", "early"))
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate()
    assert process.returncode == EXIT_INTERRUPTED, rest
    begun = [files for files in StoreFiles(tmp_path).trials() if files.rows() and files.result() is None]
    assert begun
    for files in begun:
        parts = read_checkpoint(files.checkpoint)
        assert parts["epoch"] == len(files.rows())
    assert not StoreFiles(tmp_path).sweep("tiny").stop.exists()
    assert not StoreFiles(tmp_path).sweep("tiny").driver.exists()


@pytest.mark.parametrize(
    ("budget", "why"),
    [
        pytest.param("stop.hours=0.0001", "stop.hours", marks=pytest.mark.slow),
        pytest.param("stop.target=9", "stop.target", marks=pytest.mark.slow),
    ],
)
def test_a_budget_ends_a_sweep_that_then_resumes(
    swept: tuple[Path, Ending], sweep_file: Path, ray_address: str, tmp_path: Path, budget: str, why: str
) -> None:
    end, said = run(sweep_file, tmp_path, ray_address, (budget,))
    assert end.exit_code == EXIT_OK, said
    assert end.trained < swept[1].trained
    assert any(note.startswith(why) for note in end.notes)
    end, said = run(sweep_file, tmp_path, ray_address)
    assert end.exit_code == EXIT_OK, said
    assert end.notes == []
    assert outcome(tmp_path) == outcome(swept[0])


@pytest.mark.slow
def test_a_driver_that_is_asked_to_stop_ends_as_if_interrupted(
    sweep_file: Path, ray_address: str, tmp_path: Path
) -> None:
    process = started(sweep_file, tmp_path, ray_address, until=("early",))
    StoreFiles(tmp_path).sweep("tiny").stop.touch()  # as `kdtune stop` does
    _, rest = process.communicate()
    assert process.returncode == EXIT_INTERRUPTED, rest
