"""Trials by the Python API: trained from any source, resumed, fine-tuned; their features, students and replay."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import CPU, bits, link_clips

import kdtune
from kdtune.clips.catalog import video_path
from kdtune.clips.dataset import TrialData
from kdtune.config.key import TRAINER_SEMANTICS
from kdtune.config.trial import TrialConfig
from kdtune.models.heads import build_network
from kdtune.store.files import write_json
from kdtune.train.measuring.evaluate import video_features
from kdtune.train.profile import make_deterministic, settings_kept
from kdtune.train.samples import Samples
from kdtune.train.session import Session


@pytest.fixture(scope="module")
def place(trial_form: dict[str, Any], prepared: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `trial.yaml`, and with `runs` where that trial is complete."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "trial.yaml").write_text(yaml.safe_dump(trial_form))
    link_clips(prepared.store.root, folder / "runs")
    kdtune.train(folder / "trial.yaml", store=folder / "runs", device="cpu").run()
    return folder


@pytest.fixture
def trial(place: Path) -> kdtune.Trial:
    (found,) = kdtune.Store(place / "runs").trials()
    return found


# ---- training --------------------------------------------------------------------------------------------------------


def test_a_file_a_mapping_and_a_config_are_one_trial(
    place: Path, trial: kdtune.Trial, trial_form: dict[str, Any], tiny: TrialConfig
) -> None:
    for source in (place / "trial.yaml", str(place / "trial.yaml"), trial_form, tiny):
        assert kdtune.train(source, store=place / "runs").trial == trial
    assert trial.config.model_copy(update={"stages": tiny.stages}) == trial.config
    assert kdtune.train(trial.config, store=place / "runs").trial == trial, "a restored one, too"


def test_all_problems_are_told_at_once(trial_form: dict[str, Any], tmp_path: Path) -> None:
    wrong = {**trial_form, "epochs": 0, "clip": {"frames": 8, "size": "small"}, "loose": 1}
    with pytest.raises(kdtune.ConfigError) as refused:
        kdtune.train(wrong, store=tmp_path)
    assert sorted(problem.where for problem in refused.value.problems) == [
        "trial: clip.size",
        "trial: epochs",
        "trial: loose",
    ]
    with pytest.raises(kdtune.StoreError, match="store: names no folder"):
        kdtune.train(trial_form, store=" ")


def test_a_stopped_training_resumes_to_the_same_bits(
    place: Path, trial: kdtune.Trial, prepared: Session, tmp_path: Path
) -> None:
    link_clips(prepared.store.root, tmp_path / "runs")
    training = kdtune.train(place / "trial.yaml", store=tmp_path / "runs", device="cpu")
    assert next(training)["epoch"] == 1
    training.close()
    assert training.trial.state == "incomplete"
    again = kdtune.train(place / "trial.yaml", store=tmp_path / "runs", device="cpu").run()
    assert again.result is not None
    assert bits(again.files) == bits(trial.files)


def test_fine_tuning_follows(place: Path, trial: kdtune.Trial, trial_form: dict[str, Any], tmp_path: Path) -> None:
    link_clips(place / "runs", tmp_path / "runs")
    shutil.copytree(place / "runs" / "trials", tmp_path / "runs" / "trials")
    training = kdtune.train({**trial_form, "finetune": {"epochs": 1}}, store=tmp_path / "runs", device="cpu")
    assert training.finetuned is not None
    assert (training.trial.key, training.finetuned.state) == (trial.key, "incomplete")
    assert [row["epoch"] for row in training] == [1, 2, 1]
    assert training.finetuned.config.start is not None
    assert training.finetuned.result is not None


# ---- a trial ---------------------------------------------------------------------------------------------------------


def test_features_have_the_bits_of_the_trainers_evaluation(
    trial: kdtune.Trial, tiny: TrialConfig, prepared: Session
) -> None:
    clips = prepared.clips(tiny)
    data = TrialData.of(tiny, clips)
    student = trial.load_student()
    with settings_kept():
        make_deterministic(tiny)  # the process may have other settings by now
        network = build_network(tiny)
        network.load_state_dict(student.network.state_dict())
        expected, _ = video_features(network, Samples(tiny, data, CPU), data.train)
    files = [video_path(Path(tiny.data.folder), clips.index["video"][row]) for row in data.train]
    found = trial.features(files, device="cpu")
    assert (found.dtype, found.shape) == (np.float32, (len(files), 32))
    np.testing.assert_array_equal(found, expected.numpy())
    assert trial.features([]).shape == (0, 32)


def test_every_video_that_cannot_be_used_is_named(trial: kdtune.Trial, tmp_path: Path) -> None:
    short, torn = np.zeros((7, 40, 40, 3), np.uint8), tmp_path / "torn.avi"
    torn.write_bytes(b"RIFF")
    with pytest.raises(kdtune.DataError) as refused:
        trial.features([np.zeros((9, 40, 40, 3), np.uint8), short, torn, tmp_path / "none.avi", np.zeros((8, 40, 40))])
    said = [str(problem) for problem in refused.value.problems]
    assert said[0] == "videos[1]: has 7 frames, the student needs at least 8"
    assert [line.partition(": ")[0] for line in said[1:]] == [str(torn), str(tmp_path / "none.avi"), "videos[4]"]
    assert said[3] == "videos[4]: frames must be uint8 (T, H, W, 3), but got float64 (8, 40, 40)"
    with pytest.raises(TypeError, match="must be a list of paths or arrays"):
        trial.features("clip.avi")


def test_settings_are_put_back() -> None:
    def settings() -> list[object]:
        cudnn = torch.backends.cudnn
        own = [cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32]
        own += [torch.backends.mkldnn.enabled, os.environ.get("CUBLAS_WORKSPACE_CONFIG"), torch.get_num_threads()]
        return [*own, torch.are_deterministic_algorithms_enabled()]

    before = settings()
    with settings_kept():
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled())
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        torch.backends.mkldnn.set_flags(_enabled=not torch.backends.mkldnn.enabled)
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = "other"
        assert all(now != then for now, then in zip(settings()[-4:], before[-4:], strict=True))
    assert settings() == before


def test_places_and_records_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    for named in ("me:word@host\0", "", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(kdtune.StoreError, match="store: "):
            kdtune.Store(named)
    store = kdtune.Store(tmp_path)
    folder = store.files.trial("0" * 32).folder
    for form in (
        {"trial": {"loss": 3}, "data": "x", "teacher": None, "start": None, "semantics": TRAINER_SEMANTICS},
        {"trial": 1},
    ):
        write_json(folder / "config.json", form)
        with pytest.raises(kdtune.StoreError, match="does not hold a trial's configuration"):
            _ = store.trial("0").config
