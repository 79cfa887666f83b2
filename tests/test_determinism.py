"""DESIGN 4.1: the same trial under the same profile gives the same bits, whatever happens around it."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import CPU, ROOT, bits, train

from kdtune.config.trial import TrialConfig
from kdtune.store import StoreFiles, TrialFiles
from kdtune.train.session import Session


@pytest.fixture(scope="module")
def distilled(trial_form: dict[str, Any]) -> TrialConfig:
    """A trial with a teacher, so that targets play a part."""
    teacher = {"student": {"backbone": "c3d", "width": 4}, "epochs": 1, "stages": {"late": 1}}
    stages = {"early": 1, "late": 3}
    return TrialConfig.model_validate({**trial_form, "teacher": teacher, "epochs": 3, "stages": stages})


@pytest.fixture(scope="module")
def reference(distilled: TrialConfig, prepared: Session, tmp_path_factory: pytest.TempPathFactory) -> TrialFiles:
    return train(distilled, StoreFiles(tmp_path_factory.mktemp("reference")), prepared)


#: A user's script without an `if __name__ == "__main__"` guard. A loader worker must not run it again.
TRAINS = """
import json, sys
import torch
from kdtune.config.trial import TrialConfig
from kdtune.store import StoreFiles
from kdtune.train.session import Session
config, store, folders, workers = sys.argv[1:]
session = Session(StoreFiles(store), json.loads(folders), int(workers))
for _ in session.trial(TrialConfig.model_validate_json(config), torch.device("cpu")):
    pass
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("script") / "trains.py"
    file.write_text(TRAINS)
    return file


def training(
    script: Path, config: TrialConfig, store: Path, prepared: Session, workers: int = 0, **more: Any
) -> subprocess.Popen[bytes]:
    """Train `config` in a process of its own. `more` goes to Popen."""
    arguments = [config.model_dump_json(by_alias=True), str(store), json.dumps(prepared.folders), str(workers)]
    return subprocess.Popen([sys.executable, str(script), *arguments], **more)


def test_two_runs_have_the_same_bits(
    distilled: TrialConfig, prepared: Session, reference: TrialFiles, tmp_path: Path
) -> None:
    session = Session(
        StoreFiles(tmp_path), dict(prepared.folders)
    )  # it shares nothing with the session of the first run
    for _ in session.trial(distilled, CPU):
        pass
    again = session.files(distilled)
    assert again.key == reference.key
    assert bits(again) == bits(reference)


def test_loader_workers_change_no_bit_and_are_not_forked_from_the_trainer(
    distilled: TrialConfig, prepared: Session, reference: TrialFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork copies the locks of the trainer's threads as they are, and the child may wait for one for ever."""
    monkeypatch.setattr("os.fork", lambda: pytest.fail("the trainer was forked"))
    session = Session(StoreFiles(tmp_path), dict(prepared.folders), workers=2)
    for row in session.trial(distilled, CPU):
        if row["epoch"] < distilled.epochs:
            assert len(multiprocessing.active_children()) == 2, "so many processes read ahead"
    assert multiprocessing.active_children() == [], "they end with the trial"
    assert bits(session.files(distilled)) == bits(reference)


def test_frames_decoded_anew_change_no_bit(
    distilled: TrialConfig, prepared: Session, reference: TrialFiles, tmp_path: Path
) -> None:
    session = Session(StoreFiles(tmp_path))
    session.prepare(distilled)
    assert session.folders.keys() == prepared.folders.keys()
    assert session.folders != prepared.folders
    assert bits(train(distilled, StoreFiles(tmp_path), session)) == bits(reference)


@pytest.mark.slow
def test_the_jpeg_tier_repeats_itself(distilled: TrialConfig, reference: TrialFiles, tmp_path: Path) -> None:
    """Decoded again and read by loader workers: other bits than with the raw tier, but always the same."""
    teacher = distilled.teacher
    assert teacher is not None
    clip = distilled.clip.model_copy(update={"tier": "jpeg"})
    config = distilled.model_copy(
        update={"clip": clip, "teacher": teacher.model_copy(update={"clip": clip}), "epochs": 2, "stages": {"late": 2}}
    )
    ends = []
    for name, workers in (("a", 0), ("b", 0), ("c", 2)):
        session = Session(StoreFiles(tmp_path / name), workers=workers)
        session.prepare(config)
        for _ in session.trial(config, CPU):
            pass
        ends.append(session.files(config))
    assert len({files.key for files in ends}) == 1
    assert bits(ends[0]) == bits(ends[1]) == bits(ends[2])
    assert bits(ends[0])[0][0]["train"] != bits(reference)[0][0]["train"]


def test_another_start_time_changes_no_bit(
    distilled: TrialConfig, prepared: Session, reference: TrialFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = time.perf_counter
    monkeypatch.setattr(time, "time", lambda: 4e9 + clock())
    monkeypatch.setattr(time, "perf_counter", lambda: 1e6 + 3 * clock())
    files = train(distilled, StoreFiles(tmp_path), prepared)
    assert all(row["at"] > 4e9 for row in files.rows())
    assert bits(files) == bits(reference)


@pytest.mark.slow
def test_beside_three_other_trials_the_bits_are_those_of_one_alone(
    script: Path, distilled: TrialConfig, prepared: Session, reference: TrialFiles, tmp_path: Path
) -> None:
    """Four processes at once in one store share the teacher and its targets."""
    loss = distilled.loss.model_copy(update={"lambda_": 0.5})
    others = [distilled.model_copy(update=update) for update in ({"seed": 1}, {"loss": loss}, {"teacher": None})]
    running = [training(script, config, tmp_path, prepared) for config in (distilled, *others)]
    assert [process.wait() for process in running] == [0, 0, 0, 0]
    session = Session(StoreFiles(tmp_path), dict(prepared.folders))
    assert bits(session.files(distilled)) == bits(reference)
    assert len({session.files(config).key for config in others} - {reference.key}) == 3
    assert all(bits(session.files(config)) != bits(reference) for config in others)


def test_warm_targets_change_no_bit_load_no_teacher_and_serve_smaller_fractions(
    distilled: TrialConfig, prepared: Session, reference: TrialFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StoreFiles(tmp_path)
    # Another student of the same teacher on the same data computes the targets.
    other = distilled.model_copy(update={"student": distilled.student.model_copy(update={"backbone": "r21d"})})
    train(other, store, prepared)
    monkeypatch.setattr("kdtune.train.targets.load_teacher", lambda *_: pytest.fail("the teacher was loaded"))
    assert bits(train(distilled, store, prepared)) == bits(reference)
    half = distilled.model_copy(update={"data": distilled.data.model_copy(update={"fraction": 0.5})})
    train(half, store, prepared)


def test_two_processes_make_one_trial_once_whatever_their_directory_threads_and_hash_seed(
    script: Path, distilled: TrialConfig, prepared: Session, reference: TrialFiles, tmp_path: Path
) -> None:
    running = []
    for name, hash_seed, threads in (("here", "1", "1"), ("there", "4711", "2")):
        folder = tmp_path / name
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
        store = tmp_path / "runs"
        running.append(training(script, distilled, store, prepared, workers=1, cwd=folder, env=environment))
    assert [process.wait() for process in running] == [0, 0]
    files = StoreFiles(tmp_path / "runs").trial(reference.key)
    assert bits(files) == bits(reference)
    # Only one of them trained each epoch: one row each, in order of time.
    times = [row["at"] for row in files.rows()]
    assert times == sorted(times)
    assert len(times) == distilled.epochs
    assert time.time() >= times[-1]


def test_lambda_zero_is_the_scratch_trial(tiny: TrialConfig, distilled: TrialConfig, prepared: Session) -> None:
    without = distilled.model_copy(update={"loss": distilled.loss.model_copy(update={"lambda_": 0.0})})
    assert prepared.key(without) == prepared.key(distilled.model_copy(update={"teacher": None}))


# Slow: test_cuda.py repeats r21d with a memory bank and c3d in batches, and all pairs have golden values.
@pytest.mark.slow
@pytest.mark.parametrize("contrast", ["memory_bank", "in_batch"])
@pytest.mark.parametrize("backbone", ["r3d", "r21d", "c3d"])
def test_every_backbone_and_contrast_trains_and_repeats(
    tiny: TrialConfig, prepared: Session, tmp_path: Path, backbone: str, contrast: str
) -> None:
    config = tiny.model_copy(
        update={
            "student": tiny.student.model_copy(update={"backbone": backbone}),
            "loss": tiny.loss.model_copy(update={"contrast": contrast}),
            "epochs": 1,
            "stages": {"late": 1},
        }
    )
    first, second = (train(config, StoreFiles(tmp_path / name), prepared) for name in ("a", "b"))
    assert bits(first) == bits(second)


def test_a_loss_that_is_not_finite_names_the_step(tiny: TrialConfig, prepared: Session, tmp_path: Path) -> None:
    wild = tiny.model_copy(update={"optimizer": tiny.optimizer.model_copy(update={"lr": 1e30})})
    with pytest.raises(Exception, match=r"not finite at epoch 1, step \d of \d"):
        train(wild, StoreFiles(tmp_path), prepared)
    session = Session(StoreFiles(tmp_path), dict(prepared.folders))
    assert "not finite" in (session.files(wild).failure() or "")
