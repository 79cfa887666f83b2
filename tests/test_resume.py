"""DESIGN 4.1: a trial that is stopped or killed, anywhere and however often, ends in the bits of an undisturbed one."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, bits, stopped, train
from lives import KINDS, Lives, left

from kdtune.config.trial import TrialConfig
from kdtune.store import StoreFiles
from kdtune.store.files import append_jsonl
from kdtune.train.session import Session


@pytest.fixture(scope="module")
def config(trial_form: dict[str, Any]) -> TrialConfig:
    """A trial with all that can be lost: a teacher, targets, banks, a projector, best weights, a falling rate."""
    more = {
        "data": {**trial_form["data"], "fraction": 0.5},
        "clip": {"frames": 4, "size": 24},
        # With Kaiming's weights the best epoch is not the last.
        "student": {"backbone": "r3d", "width": 4, "init": "kaiming"},
        "teacher": {"student": {"backbone": "r21d", "width": 4, "init": "kaiming"}, "epochs": 1, "stages": {"late": 1}},
        "loss": {"negatives": 16, "beta": 0.5, "gamma": 0.5},
        "optimizer": {"batch": 4, "patience": 0},
        "evaluation": {"clips": 1},
        "epochs": 3,
        "stages": {"early": 1, "late": 3},
        "stage": {"weights": "best", "every": 1},
    }
    return TrialConfig.model_validate({**trial_form, **more})


@pytest.fixture(scope="module")
def whole(config: TrialConfig, prepared: Session, tmp_path_factory: pytest.TempPathFactory) -> StoreFiles:
    """The store of the same trial, never killed."""
    store = StoreFiles(tmp_path_factory.mktemp("whole"))
    files = train(config, store, prepared)
    first, *_, last = files.rows()
    result = files.result()
    assert last["lr"] < first["lr"], "the schedule must act, or its state proves nothing"
    assert result is not None
    assert result["kept_epoch"] < config.epochs, "the best weights must not be the last, or they prove nothing"
    return store


@pytest.fixture(scope="module")
def killed(config: TrialConfig, prepared: Session) -> Iterator[subprocess.Popen[str]]:
    form, folders = config.model_dump_json(by_alias=True), json.dumps(prepared.folders)
    command = [sys.executable, str(ROOT / "tests" / "killed.py"), form, folders]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def passed(killed: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """The lines that an undisturbed attempt reaches."""
    lives = Lives(killed, random.Random(0))
    lives.attempt(StoreFiles(tmp_path_factory.mktemp("counted")))
    return lives.passed


@pytest.fixture
def lives(killed: subprocess.Popen[str], passed: Counter[str]) -> Lives:
    return Lives(killed, random.Random(0), passed.copy())


def test_a_trial_killed_at_any_line_ends_in_the_same_bits(lives: Lives, whole: StoreFiles, tmp_path: Path) -> None:
    life = 0
    while min(lives.counts()[kind] for kind in KINDS) < 1:  # the slow test below kills it 300 times
        store = StoreFiles(tmp_path / str(life))
        lives.live(store)
        assert left(store) == left(whole), f"life {life}"
        life += 1
    counts = lives.counts()
    assert counts["moments"] > 0.8 * counts["kills"], counts


def test_a_trial_killed_from_outside_ends_in_the_same_bits_in_another_process(
    lives: Lives, config: TrialConfig, prepared: Session, whole: StoreFiles, tmp_path: Path
) -> None:
    """The drawn line runs while the signal is on its way, so that the signal also arrives in the middle of a call."""
    store = StoreFiles(tmp_path / "killed")
    for _ in range(4):
        lives.attempt_anywhere(store, from_outside=True, every_s=0.0)
    train(config, store, prepared)
    assert left(store) == left(whole)
    assert len(lives.kills) >= 2


@pytest.mark.slow
def test_a_killed_trial_whose_last_checkpoint_is_damaged_too_ends_in_the_same_bits(
    lives: Lives, config: TrialConfig, prepared: Session, whole: StoreFiles, tmp_path: Path
) -> None:
    begun, life = StoreFiles(tmp_path / "begun"), 0
    stopped(config, begun, prepared, 2)
    while lives.damaged < 5:
        store = StoreFiles(shutil.copytree(begun.root, tmp_path / str(life)))
        lives.live(store, damaging=0.8)
        assert left(store) == left(whole), f"life {life}"
        life += 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epochs", "torn", "lines"),
    [(2, True, "checkpoint files.py:"), (3, False, "rows files.py:"), (3, False, "training train/trial.py:")],
    ids=["the checkpoint after a damaged one", "the result", "the trial"],
)
def test_a_trial_may_be_killed_at_each_of_the_last_lines_of(
    epochs: int,
    torn: bool,
    lines: str,
    config: TrialConfig,
    prepared: Session,
    lives: Lives,
    whole: StoreFiles,
    tmp_path: Path,
) -> None:
    begun = StoreFiles(tmp_path / "begun")
    files = stopped(config, begun, prepared, epochs)
    if torn:
        files.checkpoint.write_bytes(files.checkpoint.read_bytes()[:-3000])

    def again(name: str) -> StoreFiles:
        return StoreFiles(shutil.copytree(begun.root, tmp_path / name))

    passed = lives.attempt(again("uncut"))["passed"]
    places = [line for line in passed if line.startswith(lines)][-10:]
    assert len(places) >= 8
    for i, place in enumerate(places):
        store = again(str(i))
        assert lives.attempt(store, place)["exit"] == -signal.SIGKILL
        assert lives.attempt(store)["exit"] == 0, f"killed at {place}"
        assert left(store) == left(whole), f"killed at {place}"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_hundreds_of_kills_change_no_bit(
    lives: Lives, whole: StoreFiles, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seed, life = random.SystemRandom().getrandbits(32), 0
    lives.draws = random.Random(seed)
    while len(lives.kills) < 300:
        store = StoreFiles(tmp_path / str(life))
        lives.live(store, damaging=lives.draws.choice([0.0, 0.5]), from_outside=lives.draws.random() < 0.25)
        assert left(store) == left(whole), f"seed {seed}, life {life}"
        shutil.rmtree(store.root)
        life += 1
    counts = lives.counts()
    for name, value in {"seed": seed, "lives": life, **counts}.items():
        record_property(name, value)
        print(f"{name}: {value}")
    assert counts["moments"] >= 200
    assert all(counts[kind] >= 10 for kind in KINDS)


def test_a_trial_stopped_after_any_epoch_resumes_to_the_same_bits(
    config: TrialConfig, prepared: Session, whole: StoreFiles, tmp_path: Path
) -> None:
    store = StoreFiles(tmp_path)
    for epoch in range(1, config.epochs + 1):
        stopped(config, store, prepared, epoch)
    train(config, store, prepared)
    assert left(store) == left(whole)


def test_rows_beyond_the_checkpoint_are_dropped(
    config: TrialConfig, prepared: Session, whole: StoreFiles, tmp_path: Path
) -> None:
    files = stopped(config, StoreFiles(tmp_path), prepared, 1)
    # A crash between the row and the checkpoint leaves only the row.
    append_jsonl(files.epochs, {"epoch": 2, "lr": 9.0, "train": {}, "seconds": 1.0, "at": 0.0})
    files.write_failure("from an earlier attempt")
    train(config, StoreFiles(tmp_path), prepared)
    assert left(StoreFiles(tmp_path)) == left(whole)
    assert files.failure() is None


def test_the_rate_falls_on_a_plateau_of_the_validation_loss_and_survives_a_stop(
    tiny: TrialConfig, prepared: Session, tmp_path: Path
) -> None:
    schedule = tiny.optimizer.model_copy(update={"patience": 0, "factor": 0.5, "min_lr": 1e-4})
    config = tiny.model_copy(update={"optimizer": schedule, "epochs": 5, "stages": {"late": 5}})
    whole = train(config, StoreFiles(tmp_path / "whole"), prepared)
    # PCL's rule by hand: with patience 0, each epoch that is not better by the relative 1e-4 halves the next one's
    # rate.
    best, rate = float("inf"), schedule.lr
    for row in whole.rows():
        assert row["lr"] == pytest.approx(rate)
        loss = row["validation"]["pretext_loss"]
        if loss < best * (1 - 1e-4):
            best = loss
        else:
            rate = max(rate * 0.5, 1e-4)
    stopped(config, StoreFiles(tmp_path / "stopped"), prepared, 3)
    assert bits(train(config, StoreFiles(tmp_path / "stopped"), prepared)) == bits(whole)
