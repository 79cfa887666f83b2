"""Trials in a store behind a URL, on a real S3 server: another machine resumes them, and an outage loses nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import CPU, bits, clocks, session_of, stopped, train
from s3 import Machines, S3Server

from kdtune.config.trial import TrialConfig
from kdtune.errors import StoreError
from kdtune.store import StoreFiles, TrialFiles, remote
from kdtune.store.mirror import Mirror
from kdtune.store.remote import Remote
from kdtune.train.session import Session


@pytest.fixture(scope="module")
def config(trial_form: dict[str, Any]) -> TrialConfig:
    return TrialConfig.model_validate({**trial_form, "epochs": 4, "stages": {"early": 2, "late": 4}})


@pytest.fixture(scope="module")
def whole(config: TrialConfig, prepared: Session, tmp_path_factory: pytest.TempPathFactory) -> TrialFiles:
    """The same trial in a folder, undisturbed."""
    return train(config, StoreFiles(tmp_path_factory.mktemp("whole")), prepared)


def unpublished(
    monkeypatch: pytest.MonkeyPatch, config: TrialConfig, store: StoreFiles, prepared: Session, epoch: int
) -> TrialFiles:
    """Train up to `epoch`, as on a machine that is killed before it publishes any of it."""
    with monkeypatch.context() as patch:
        patch.setattr(Mirror, "publish", lambda *_: None)
        return stopped(config, store, prepared, epoch)


def test_another_machine_resumes_a_trial_to_the_same_bits(
    config: TrialConfig, prepared: Session, whole: TrialFiles, on: Machines
) -> None:
    begun = stopped(config, on("a"), prepared, 2)
    ended = train(config, on("b"), prepared)
    assert clocks(ended)[:2] == clocks(begun), "the first two epochs were not trained again"
    assert bits(ended) == bits(whole)
    # And back on the first machine: nothing is left to train.
    again = train(config, on("a"), prepared)
    assert clocks(again) == clocks(ended)
    assert again.checkpoint.exists() is False, "the old checkpoint does not go with the new rows"
    assert again.fetch(again.checkpoint).checkpoint.read_bytes() == ended.checkpoint.read_bytes()


def test_what_a_killed_machine_had_not_published_yet_is_resumed(
    config: TrialConfig, prepared: Session, whole: TrialFiles, on: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(config, on("a"), prepared, 1)
    ahead = clocks(unpublished(monkeypatch, config, on("a"), prepared, 3))
    assert len(on("b").trial(whole.key).fetch().rows()) == 1
    ended = train(config, on("a"), prepared)
    assert clocks(ended)[:3] == ahead
    assert bits(ended) == bits(whole)
    assert clocks(on("b").trial(whole.key).fetch()) == clocks(ended)


def test_where_another_machine_has_continued_meanwhile_its_rows_and_its_checkpoint_are_taken(
    config: TrialConfig, prepared: Session, whole: TrialFiles, on: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(config, on("a"), prepared, 1)
    unpublished(monkeypatch, config, on("a"), prepared, 3)
    other = clocks(stopped(config, on("b"), prepared, 2))
    ended = train(config, on("a"), prepared)
    assert clocks(ended)[:2] == other
    assert bits(ended) == bits(whole)
    assert clocks(on("c").trial(whole.key).fetch()) == clocks(ended)


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


@pytest.fixture
def restored(s3_server: S3Server) -> Iterator[S3Server]:
    """A server that the test may stop."""
    yield s3_server
    if s3_server.process is None:
        s3_server.start()


@pytest.mark.slow
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

    session = session_of(on("a"), prepared)
    run = session.trial(config, CPU)
    next(run)
    restored.stop()
    # The server comes back between its attempts.
    monkeypatch.setattr(remote, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    for _ in run:
        pass
    assert "cannot be reached" in capsys.readouterr().err
    assert bits(session.files(config)) == bits(whole)
    assert bits(on("b").trial(whole.key).fetch()) == bits(whole)


def test_after_an_outage_that_was_too_long_the_trial_resumes_from_its_checkpoint(
    config: TrialConfig,
    prepared: Session,
    whole: TrialFiles,
    on: Machines,
    restored: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = on("a")
    run = session_of(store, prepared).trial(config, CPU)
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

        def refused(self: Remote, path: Path, name: str, *more: Any) -> None:
            if name.endswith("result.json"):
                raise StoreError([])
            put(self, path, name, *more)

        put = Remote.put
        patch.setattr(Remote, "put", refused)
        with pytest.raises(StoreError):
            train(config, store, prepared)
    assert on("b").trial(whole.key).fetch().result() is None
    train(config, store, prepared)
    assert bits(on("b").trial(whole.key).fetch()) == bits(whole)
