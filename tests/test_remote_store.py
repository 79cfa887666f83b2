"""A store behind a URL, on a real S3 server: one machine finds what another made."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import CPU, clocks, train
from s3 import READER, Machines, S3Server

from kdtune.cli import main
from kdtune.config.sections import DataConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import EXIT_OK, EXIT_USER_ERROR, StoreError, UserError
from kdtune.store import TARGET_COUNTS, StoreFiles
from kdtune.store.remote import Remote
from kdtune.sweep.driver_lock import DriverLock
from kdtune.sweep.stopping import stop_file
from kdtune.train.prepared import Prepared
from kdtune.train.session import Session


@pytest.fixture
def small(tiny: TrialConfig, eight: DataConfig) -> TrialConfig:
    """A trial on 8 videos, for tests that change their frames."""
    return tiny.model_copy(update={"data": eight})


@pytest.fixture(scope="module")
def taught(trial_form: dict[str, Any]) -> TrialConfig:
    teacher = {"student": {"backbone": "c3d", "width": 4}, "epochs": 1, "stages": {"late": 1}}
    return TrialConfig.model_validate({**trial_form, "teacher": teacher})


def test_teachers_and_targets_of_another_machine_are_found(
    taught: TrialConfig, prepared: Session, on: Machines
) -> None:
    assert taught.teacher is not None
    made = train(taught, on("a"), prepared)
    size = sum(row["targets_computed"] for row in made.rows()) // 2
    store = on("b")
    other = taught.model_copy(update={"loss": taught.loss.model_copy(update={"tau": 2.0})})
    found = train(other, store, prepared)
    assert [[row[name] for name in TARGET_COUNTS] for row in found.rows()] == [[0, size]] * 2
    teacher = Session(store, dict(prepared.folders)).files(taught.teacher)
    assert clocks(teacher) == clocks(on("a").trial(teacher.key))
    assert not teacher.checkpoint.exists(), "nobody needed the teacher itself"
    half = taught.model_copy(update={"seed": 1})  # other samples: these need it
    assert train(half, on("c"), prepared).rows()[0]["targets_computed"] == size


# ---- frames ----------------------------------------------------------------------------------------------------------


def test_frames_are_decoded_by_one_machine_and_copied_by_the_others(
    small: TrialConfig, on: Machines, decodes: list[str]
) -> None:
    made = Prepared(on("a"))
    made.prepare(small)
    assert len(decodes) == 8
    found = Prepared(on("b"))
    found.prepare(small)
    assert len(decodes) == 8
    # And a worker elsewhere that gets the folder's name on the driver's machine.
    shipped = pickle.dumps(made)
    on("c")
    worker: Prepared = pickle.loads(shipped)
    for prepared in (found, worker):
        theirs, ours = prepared.clips(small), made.clips(small)
        assert theirs.folder != ours.folder
        assert theirs.folder.is_relative_to(prepared.store.root)
        assert (theirs.folder / "frames.u8").read_bytes() == (ours.folder / "frames.u8").read_bytes()
    assert worker.key(small) == made.key(small)


def test_frames_that_are_damaged_there_are_refused(small: TrialConfig, on: Machines, s3: str) -> None:
    made = Prepared(on("a"))
    made.prepare(small)
    frames = f"clips/{made.clips(small).folder.name}/frames.u8"
    content = bytearray(Remote(s3).read(frames) or b"")
    content[1000] ^= 1
    Remote(s3).write(frames, bytes(content))
    with pytest.raises(StoreError, match=r"frames\.u8 is damaged"):
        Prepared(on("b")).prepare(small)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "user", "endpoint", "said"),
    [
        ("s3://kdtune/x", None, "http://127.0.0.1:9", "cannot be reached"),
        ("s3://nowhere/x", None, None, "there is no such bucket"),
        ("s3://kdtune/x", READER, None, "cannot be written: Access Denied"),
        ("s3://kdtune/x", "nobody", None, "cannot be read: "),
        ("s4://kdtune/x", None, None, "cannot be read: Protocol not known: s4"),
        ("HTTP://127.0.0.1:9/x", None, None, "belongs to a web server, whose files can be neither listed nor written"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_at_once(
    url: str,
    user: str | None,
    endpoint: str | None,
    said: str,
    sweep_file: Path,
    s3_server: S3Server,
    machine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = s3_server.settings(*[user] if user else []).replace(s3_server.endpoint, endpoint or s3_server.endpoint)
    (tmp_path / "aws").write_text(settings)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))
    monkeypatch.setenv("KDTUNE_CACHE", str(tmp_path / "cache"))
    for arguments in (["sweep", str(sweep_file)], ["train", str(sweep_file)]):
        assert main([*arguments, "--store", url]) == EXIT_USER_ERROR
        error = capsys.readouterr().err
        assert error.startswith("kdtune: 1 problem\n")
        assert f"  {url}: {said}" in error


@pytest.mark.slow
def test_a_second_driver_on_another_machine_is_refused_and_may_ask_the_first_to_stop(on: Machines) -> None:
    first, second = on("a"), on("b")
    files, seen = first.sweep("tiny"), second.sweep("tiny")
    with files.synced(), DriverLock(first, "tiny", None):
        files.publish()
        with (
            seen.synced(),
            pytest.raises(UserError, match=r"another driver runs it \(host .*process"),
            DriverLock(second, "tiny", None),
        ):
            pass
        stopping = stop_file(on("worker").sweep("tiny"))
        assert not stopping()
        seen.stop.touch()
        seen.publish()
        deadline = time.monotonic() + 30
        while not (stopping() and files.stop.exists()):
            assert time.monotonic() < deadline
    assert seen.fetch().driver.exists() is seen.stop.exists() is False
    with seen.synced(), DriverLock(second, "tiny", None):
        assert not seen.stops()


# ---- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_results_teachers_and_replay_need_no_working_copy(
    taught: TrialConfig,
    on: Machines,
    s3: str,
    tmp_path: Path,
    trial_form: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    session = Session(on("a"))
    session.prepare(taught)
    for _ in session.trial(taught, CPU):
        pass
    key = session.key(taught)
    on("b")
    assert main(["teacher", "list", "--store", s3]) == EXIT_OK
    assert key[:12] in capsys.readouterr().out
    on("c")
    assert main(["replay", key[:16], "--store", s3, "--device", "cpu"]) == EXIT_OK
    assert "SAME 1/1" in capsys.readouterr().out
    on("d")
    assert main(["replay", key[:16], "--from", "early", "--store", s3, "--device", "cpu"]) == EXIT_OK
    assert "SAME 1/1" in capsys.readouterr().out
    on("e")
    assert main(["results", "unknown", "--store", s3]) == EXIT_USER_ERROR
    assert "holds no sweep named 'unknown'" in capsys.readouterr().err


def test_a_folder_named_by_a_file_url_is_that_folder(tmp_path: Path) -> None:
    store = StoreFiles(f"file://{tmp_path}/runs")
    assert store.mirror is None
    assert store.claim() == StoreFiles(tmp_path / "runs").claim()


def test_all_machines_know_the_store_by_one_name(on: Machines) -> None:
    assert on("a").claim() == on("b").claim() == on("a").claim()
