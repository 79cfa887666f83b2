"""A store behind a URL, on a real S3 server: what one machine makes another finds, and an outage loses nothing."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import CPU, bits, stopped, train
from s3 import READER, S3Server

from kdtune import remote
from kdtune.cli import main
from kdtune.config.sections import DataConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import EXIT_OK, EXIT_USER_ERROR, StoreError, UserError
from kdtune.mirror import Mirror
from kdtune.remote import Remote
from kdtune.store import TARGET_COUNTS, Store, TrialFiles
from kdtune.sweep.presence import Presence
from kdtune.sweep.stopping import StopFile
from kdtune.train.prepared import Prepared
from kdtune.train.session import Session

#: Makes the store as a machine of this name sees it, with a working copy of its own.
Machines = Callable[[str], Store]


@pytest.fixture
def on(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    def store(machine: str) -> Store:
        monkeypatch.setenv("KDTUNE_CACHE", str(tmp_path / machine))
        return Store(s3)

    return store


@pytest.fixture(scope="module")
def config(trial_form: dict[str, Any]) -> TrialConfig:
    return TrialConfig.model_validate({**trial_form, "epochs": 4, "stages": {"early": 2, "late": 4}})


@pytest.fixture(scope="module")
def whole(config: TrialConfig, prepared: Session, tmp_path_factory: pytest.TempPathFactory) -> TrialFiles:
    """The same trial in a folder, undisturbed."""
    return train(config, Store(tmp_path_factory.mktemp("whole")), prepared)


@pytest.fixture
def small(tiny: TrialConfig, eight: DataConfig) -> TrialConfig:
    """On 8 videos, for what is done to their frames."""
    return tiny.model_copy(update={"data": eight})


@pytest.fixture(scope="module")
def taught(trial_form: dict[str, Any]) -> TrialConfig:
    teacher = {"student": {"backbone": "c3d", "width": 4}, "epochs": 1, "stages": {"late": 1}}
    return TrialConfig.model_validate({**trial_form, "teacher": teacher})


def clocks(files: TrialFiles) -> list[float]:
    """When each epoch was trained."""
    return [row["at"] for row in files.rows()]


# ---- trials ----------------------------------------------------------------------------------------------------------


def test_another_machine_goes_on_with_a_trial_to_the_same_bits(
    config: TrialConfig, prepared: Session, whole: TrialFiles, on: Machines
) -> None:
    begun = stopped(config, on("a"), prepared, 2)
    ended = train(config, on("b"), prepared)
    assert clocks(ended)[:2] == clocks(begun), "the first two epochs were not trained again"
    assert bits(ended) == bits(whole)
    # And back again: there is nothing left to train.
    again = train(config, on("a"), prepared)
    assert clocks(again) == clocks(ended)
    assert again.checkpoint.exists() is False, "the old checkpoint does not go with the new rows"
    assert again.fetch(again.checkpoint).checkpoint.read_bytes() == ended.checkpoint.read_bytes()


def test_what_a_killed_machine_had_not_published_yet_is_gone_on_with(
    config: TrialConfig, prepared: Session, whole: TrialFiles, on: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(config, on("a"), prepared, 1)
    with monkeypatch.context() as patch:
        patch.setattr(Mirror, "publish", lambda *_: None)
        ahead = clocks(stopped(config, on("a"), prepared, 3))
    assert len(on("b").trial(whole.key).fetch().rows()) == 1
    ended = train(config, on("a"), prepared)
    assert clocks(ended)[:3] == ahead
    assert bits(ended) == bits(whole)
    assert clocks(on("b").trial(whole.key).fetch()) == clocks(ended)


def test_where_another_machine_has_gone_on_meanwhile_its_rows_and_its_checkpoint_are_taken(
    config: TrialConfig, prepared: Session, whole: TrialFiles, on: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(config, on("a"), prepared, 1)
    with monkeypatch.context() as patch:
        patch.setattr(Mirror, "publish", lambda *_: None)
        stopped(config, on("a"), prepared, 3)
    other = clocks(stopped(config, on("b"), prepared, 2))
    ended = train(config, on("a"), prepared)
    assert clocks(ended)[:2] == other
    assert bits(ended) == bits(whole)
    assert clocks(on("c").trial(whole.key).fetch()) == clocks(ended)


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


def test_a_failure_is_told_and_taken_back(config: TrialConfig, prepared: Session, on: Machines) -> None:
    store = on("a")
    rate = config.optimizer.model_copy(update={"lr": 1e30})
    bad = config.model_copy(update={"optimizer": rate})
    with pytest.raises(Exception, match="not finite"):
        train(bad, store, prepared)
    key = Session(store, dict(prepared.folders)).key(bad)
    elsewhere = on("b").trial(key)
    assert "not finite" in (elsewhere.fetch().failure() or "")
    files = store.trial(key)
    files.clear_failure()
    files.publish()
    assert elsewhere.fetch().failure() is None


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
    # And a worker elsewhere, that is handed the folder's name on the driver's machine.
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


# ---- outages ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def restored(s3_server: S3Server) -> Iterator[S3Server]:
    """A server that the test may stop."""
    yield s3_server
    if s3_server.process is None:
        s3_server.start()


def test_an_outage_in_mid_trial_is_waited_for(
    config: TrialConfig,
    prepared: Session,
    whole: TrialFiles,
    on: Machines,
    restored: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def sleep(seconds: float) -> None:
        if restored.process is None:
            restored.start()
        time.sleep(seconds)

    session = Session(on("a"), dict(prepared.folders))
    run = session.trial(config, CPU)
    next(run)
    restored.stop()
    # Between its attempts the server comes back.
    monkeypatch.setattr(remote, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    for _ in run:
        pass
    assert "cannot be reached" in capsys.readouterr().err
    assert bits(session.files(config)) == bits(whole)
    assert bits(on("b").trial(whole.key).fetch()) == bits(whole)


def test_after_an_outage_that_was_too_long_the_trial_goes_on_from_its_checkpoint(
    config: TrialConfig,
    prepared: Session,
    whole: TrialFiles,
    on: Machines,
    restored: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = on("a")
    run = Session(store, dict(prepared.folders)).trial(config, CPU)
    next(run)
    restored.stop()
    monkeypatch.setattr(remote, "PATIENCE_S", 1.0)
    with pytest.raises(StoreError, match="cannot be reached"):
        for _ in run:
            pass
    files = store.trial(whole.key)
    assert "cannot be reached" in (files.failure() or "")
    before = clocks(files)
    assert len(before) > 1
    restored.start()
    ended = train(config, store, prepared)
    assert clocks(ended)[: len(before)] == before
    assert bits(ended) == bits(whole)
    assert bits(on("b").trial(whole.key).fetch()) == bits(whole)
    assert on("b").trial(whole.key).failure() is None


def test_a_result_that_could_not_be_published_is_published_by_the_next_attempt(
    config: TrialConfig, prepared: Session, whole: TrialFiles, on: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = on("a")
    with monkeypatch.context() as patch:

        def refused(self: Remote, path: Path, name: str) -> None:
            if name.endswith("result.json"):
                raise StoreError([])
            put(self, path, name)

        put = Remote.put
        patch.setattr(Remote, "put", refused)
        with pytest.raises(StoreError):
            train(config, store, prepared)
    assert on("b").trial(whole.key).fetch().result() is None
    train(config, store, prepared)
    assert bits(on("b").trial(whole.key).fetch()) == bits(whole)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "user", "endpoint", "said"),
    [
        ("s3://kdtune/x", None, "http://127.0.0.1:9", "cannot be reached"),
        ("s3://nowhere/x", None, None, "there is no such bucket"),
        ("s3://kdtune/x", READER, None, "cannot be written: Access Denied"),
        ("s3://kdtune/x", "nobody", None, "cannot be written: "),
        ("s4://kdtune/x", None, None, "cannot be written: Protocol not known: s4"),
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


def test_a_second_driver_on_another_machine_is_refused_and_may_ask_the_first_to_stop(on: Machines) -> None:
    first, second = on("a"), on("b")
    files, seen = first.sweep("tiny"), second.sweep("tiny")
    with files.kept(), Presence(first, "tiny", None):
        files.publish()
        with (
            seen.kept(),
            pytest.raises(UserError, match=r"another driver runs it \(host .*process"),
            Presence(second, "tiny", None),
        ):
            pass
        stopping = StopFile(on("worker").sweep("tiny"))
        assert not stopping()
        seen.stop.touch()
        seen.publish()
        deadline = time.monotonic() + 30
        while not (stopping() and files.stop.exists()):
            assert time.monotonic() < deadline
    assert seen.fetch().driver.exists() is seen.stop.exists() is False
    with seen.kept(), Presence(second, "tiny", None):
        assert not seen.stops()


# ---- commands --------------------------------------------------------------------------------------------------------


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
    store = Store(f"file://{tmp_path}/runs")
    assert store.mirror is None
    assert store.claim() == Store(tmp_path / "runs").claim()


def test_all_machines_know_the_store_by_one_name(on: Machines) -> None:
    assert on("a").claim() == on("b").claim() == on("a").claim()


# ---- objects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["s3", "memory"])
def test_objects_are_written_listed_created_once_and_removed(
    protocol: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    here = Remote(request.getfixturevalue("s3") if protocol == "s3" else f"memory://{tmp_path.name}")
    assert here.listing("a") == here.tree("a") == {}
    assert here.read("a/b") is None
    assert not here.get("a/b", tmp_path / "copy")
    (tmp_path / "file").write_bytes(b"first")
    here.put(tmp_path / "file", "a/b")
    here.write("a/c/d", b"deeper")
    before = here.listing("a")
    assert list(before) == ["b"]
    assert {folder: list(names) for folder, names in here.tree("a").items()} == {"a": ["b"], "a/c": ["d"]}
    here.write("a/b", b"second")
    assert here.listing("a") != before
    assert here.get("a/b", tmp_path / "deep" / "copy")
    assert [path.read_bytes() for path in (tmp_path / "deep").iterdir()] == [b"second"]
    assert here.create("a/new", b"mine")
    assert here.create("a/new", b"mine"), "the answer to the first attempt may have been lost"
    assert not here.create("a/new", b"another's")
    assert here.read("a/new") == b"mine"
    for _ in range(2):
        here.remove("a/new")
    assert here.read("a/new") is None
