"""DESIGN 4.3: targets are computed once, by the first process that needs a block; shared, verified and counted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import CPU, ROOT, session_of, train

from kdtune.clips.dataset import TrialData
from kdtune.config.trial import TrialConfig
from kdtune.store import TARGET_COUNTS, StoreFiles, TrialFiles
from kdtune.train.samples import Samples
from kdtune.train.session import Session
from kdtune.train.targets import Targets


@pytest.fixture(scope="module")
def taught(trial_form: dict[str, Any]) -> TrialConfig:
    teacher = {"student": {"backbone": "c3d", "width": 4}, "epochs": 1, "stages": {"late": 1}}
    return TrialConfig.model_validate({**trial_form, "teacher": teacher})


def targets_of(config: TrialConfig, session: Session) -> Targets:
    assert config.teacher is not None
    samples = Samples(config, TrialData.of(config, session.clips(config)), CPU)
    return Targets(samples, session.key(config.teacher), session.store, partial(session.weights, config.teacher, CPU))


@pytest.fixture(scope="module")
def teacher(taught: TrialConfig, prepared: Session, tmp_path_factory: pytest.TempPathFactory) -> TrialFiles:
    assert taught.teacher is not None
    return train(taught.teacher, StoreFiles(tmp_path_factory.mktemp("teacher")), prepared)


@pytest.fixture
def session(teacher: TrialFiles, prepared: Session, tmp_path: Path) -> Session:
    """A session whose store has the teacher, and no targets yet."""
    session = session_of(StoreFiles(tmp_path), prepared)
    shutil.copytree(teacher.folder, session.store.trial(teacher.key).folder)
    return session


def counts(session: Session, config: TrialConfig) -> list[list[int]]:
    """Return the numbers of targets computed and found in each epoch."""
    return [[row[name] for name in TARGET_COUNTS] for row in session.files(config).rows()]


def test_the_first_trial_computes_and_the_later_ones_find(
    taught: TrialConfig, prepared: Session, tmp_path: Path
) -> None:
    session = Session(StoreFiles(tmp_path), dict(prepared.folders))
    size = TrialData.of(taught, session.clips(taught)).size
    train(taught, session.store, prepared)
    assert counts(session, taught) == [[size, 0]] * 2
    other = taught.model_copy(update={"loss": taught.loss.model_copy(update={"tau": 2.0})})
    train(other, session.store, prepared)
    assert counts(session, other) == [[0, size]] * 2
    half = taught.model_copy(update={"data": taught.data.model_copy(update={"fraction": 0.5})})
    train(half, session.store, prepared)
    assert counts(session, half) == [[0, size // 2]] * 2


def test_a_damaged_block_is_said_and_computed_again(
    taught: TrialConfig, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = targets_of(taught, session)
    expected = targets.epoch(1)["logits"]
    path = session.store.targets(targets.key, 1, "logits", 0)
    whole = path.read_bytes()
    assert np.array_equal(np.load(path)[: len(expected)], expected.numpy()), "anything that reads .npy can read it"
    for damage in (whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:], whole[:100], b""):
        path.write_bytes(damage)
        again = targets_of(taught, session)
        assert again.epoch(1)["logits"].equal(expected)
        assert again.counts() == dict(zip(TARGET_COUNTS, (len(expected), 0), strict=True))
        assert capsys.readouterr().err == f"kdtune: {path} was damaged; computed again\n"
        assert path.read_bytes() == whole


def test_what_a_killed_process_left_half_written_is_cleared(taught: TrialConfig, session: Session) -> None:
    targets = targets_of(taught, session)
    path = session.store.targets(targets.key, 1, "logits", 0)
    path.parent.mkdir(parents=True)
    (path.parent / f".{path.name}.x1y2").write_bytes(b"half")
    targets.epoch(1)
    assert [left.name for left in path.parent.iterdir()] == [path.name]


COMPUTES = """
import json, sys
import torch
from kdtune.clips.dataset import TrialData
from kdtune.config.trial import TrialConfig
from kdtune.store import StoreFiles
from kdtune.train.profile import make_deterministic
from kdtune.train.samples import Samples
from kdtune.train.session import Session
from kdtune.train.targets import Targets
config = TrialConfig.model_validate(json.loads(sys.argv[1]))
session = Session(StoreFiles(sys.argv[2]), json.loads(sys.argv[3]))
make_deterministic(config)
samples = Samples(config, TrialData.of(config, session.clips(config)), torch.device("cpu"))
load = lambda: session.weights(config.teacher, samples.device)
targets = Targets(samples, session.key(config.teacher), session.store, load)
print("ready", flush=True)
sys.stdin.readline()
for epoch in range(1, 13):
    targets.epoch(epoch)
print(json.dumps(targets.counts()))
"""


@pytest.mark.slow
def test_trials_at_the_same_time_share_the_work_and_compute_nothing_twice(
    taught: TrialConfig, session: Session
) -> None:
    """Four processes need the same twelve epochs at once."""
    arguments = [taught.model_dump_json(by_alias=True), str(session.store.root), json.dumps(session.folders)]
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen([sys.executable, "-c", COMPUTES, *arguments], stdin=pipe, stdout=pipe, text=True, cwd=ROOT)
        for _ in range(4)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [json.loads(process.communicate()[0]) for process in running]
    size = TrialData.of(taught, session.clips(taught)).size
    assert sum(counts["targets_computed"] for counts in said) == 12 * size
    assert sum(counts["targets_found"] for counts in said) == 3 * 12 * size
