"""Students as MLflow models: a loaded model computes what the trainer's network computes, and none is logged twice."""

from __future__ import annotations

import hashlib
import pickletools
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from databases import empty_database
from helpers import CPU, run_python, train
from mlflow import MlflowClient

from kdtune.clips.dataset import TrialData
from kdtune.clips.tuples import PRETEXT_LABELS, read_clips
from kdtune.config.trial import TrialConfig
from kdtune.models.heads import build_network
from kdtune.store import StoreFiles, TrialFiles
from kdtune.tracking.ending import Students, TrackedStudent
from kdtune.tracking.publish import Publisher, TrackedTrial
from kdtune.tracking.sweep_text import SweepText
from kdtune.train.checkpoint import final_weights
from kdtune.train.inputs import evenly_spaced_clips
from kdtune.train.measuring.student import trained_student
from kdtune.train.session import Session

NAME = "kdtune-students"


@pytest.fixture(scope="module")
def trained(tiny: TrialConfig, prepared: Session, tmp_path_factory: pytest.TempPathFactory) -> TrialFiles:
    return train(tiny, StoreFiles(tmp_path_factory.mktemp("trained")), prepared)


@pytest.fixture(scope="module")
def frames(tiny: TrialConfig, prepared: Session) -> tuple[torch.Tensor, torch.Tensor]:
    """Three evenly spaced centre crops of four videos, as decoded and as the trainer's evaluation prepares them."""
    data = TrialData.of(tiny, prepared.clips(tiny))
    config = tiny.model_copy(update={"evaluation": tiny.evaluation.model_copy(update={"clips": 3})})
    rows, clip = data.validation[:4], tiny.clip
    last = data.lengths[rows] - clip.frames
    start = np.stack([0 * last, last // 2, last], axis=1)
    room = (np.array(clip.stored_size) - clip.size) // 2
    raw = read_clips(data.clips, rows, start, np.broadcast_to(room, (4, 3, 2)), clip)
    return torch.from_numpy(raw), evenly_spaced_clips(config, data, rows, CPU)


def logged(uri: str, folder: Path, trials: Sequence[tuple[TrialFiles, str | None]], register: str | None = NAME) -> Any:
    """End a sweep with these students. Return what could not be sent, and a client."""
    publisher = Publisher(uri, "students", SweepText("tiny"), folder / "mlflow.jsonl")
    tracked = [TrackedTrial(files, files.key[:8], {"key": files.key}, {}, "complete") for files, _ in trials]
    for trial in tracked:
        publisher.update(trial)
    wanted = [TrackedStudent(trial, alias) for trial, (_, alias) in zip(tracked, trials, strict=True)]
    unsent = publisher.close("complete", timeout_s=120, students=Students(tuple(wanted), register))
    return unsent, MlflowClient(tracking_uri=uri)


def models(client: MlflowClient) -> list[Any]:
    experiment = client.get_experiment_by_name("students")
    return list(client.search_logged_models([experiment.experiment_id]))


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    uri = empty_database(tmp_path / "mlflow" / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def test_a_student_prepares_frames_as_the_trainer_does(
    trained: TrialFiles, frames: tuple[torch.Tensor, torch.Tensor]
) -> None:
    raw, prepared = frames
    assert trained_student(trained).prepare(raw).equal(prepared)


def test_a_loaded_student_has_the_bits_of_the_trainers_network(
    trained: TrialFiles, tiny: TrialConfig, frames: tuple[torch.Tensor, torch.Tensor], uri: str, tmp_path: Path
) -> None:
    unsent, client = logged(uri, tmp_path, [(trained, "best-all")])
    assert unsent == []
    network = build_network(tiny).eval()
    network.load_state_dict(final_weights(trained.checkpoint))
    raw, prepared = frames
    student = mlflow.pytorch.load_model(f"models:/{NAME}@best-all")
    with torch.no_grad():
        features = network.features(prepared)
        assert student.features(raw).equal(features)
        assert student(raw).equal(network.logits(features))
        expected = student(raw).numpy()
    assert student.labels == PRETEXT_LABELS
    # With MLflow's own signature, too, as its model server does.
    served = mlflow.pyfunc.load_model(f"models:/{NAME}@best-all")
    assert (served.predict(raw.numpy()) == expected).all()
    example = served.input_example
    assert served.predict(example).shape == (1, 5)
    (model,) = models(client)
    assert model.tags["kdtune.key"] == trained.key
    assert model.params["key"] == trained.key
    last = trained.rows()[-1]["evaluation"]["test"]["knn"]
    assert {metric.key: metric.value for metric in model.metrics}["late/test/knn"] == last
    # No reference that only this process could resolve.
    with zipfile.ZipFile(Path(model.artifact_location, "data", "model.pth")) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        found = {arg for code, arg, _ in pickletools.genops(archive.read(name)) if code.name == "GLOBAL"}
    assert "kdtune.train.measuring.student Student" in found
    modules = {name.split()[0].split(".")[0] for name in found}
    assert modules <= {"kdtune", "torch", "collections", "builtins", "__builtin__"}, found
    assert not [name for name in found if name.endswith("getattr")], "what was not found by its name"
    requirements = Path(model.artifact_location, "requirements.txt").read_text().splitlines()
    assert [line.split("==")[0] for line in requirements] == ["kdtune", "torch", "torchvision", "mlflow"]


@pytest.mark.slow
def test_another_process_loads_a_student(
    trained: TrialFiles, frames: tuple[torch.Tensor, torch.Tensor], uri: str, tmp_path: Path
) -> None:
    unsent, client = logged(uri, tmp_path, [(trained, None)])
    assert unsent == []
    (model,) = models(client)
    np.save(tmp_path / "frames.npy", frames[0].numpy())
    code = f"""
import hashlib, mlflow, numpy, torch
torch.set_num_threads(1)
student = mlflow.pytorch.load_model({model.artifact_location!r})
with torch.no_grad():
    logits = student(torch.from_numpy(numpy.load({str(tmp_path / "frames.npy")!r})))
print(hashlib.sha256(logits.numpy().tobytes()).hexdigest())
"""
    with torch.no_grad():
        here = trained_student(trained)(frames[0])
    assert run_python(code).stdout.split()[-1] == hashlib.sha256(here.numpy().tobytes()).hexdigest()


def test_a_second_run_logs_none_twice_and_moves_the_alias(
    trained: TrialFiles, tiny: TrialConfig, prepared: Session, uri: str, tmp_path: Path
) -> None:
    for _ in range(2):
        unsent, client = logged(uri, tmp_path, [(trained, "best-all")])
        assert unsent == []
    (model,) = models(client)
    assert [version.source for version in client.search_model_versions(f"name = '{NAME}'")] == [model.artifact_location]
    outputs = client.get_run(model.source_run_id).outputs.model_outputs
    assert [output.model_id for output in outputs] == [model.model_id]
    better = train(tiny.model_copy(update={"seed": 1}), StoreFiles(tmp_path / "runs"), prepared)
    unsent, client = logged(uri, tmp_path, [(better, "best-all"), (trained, None)])
    assert unsent == []
    assert len(models(client)) == 2
    best = client.get_model_version_by_alias(NAME, "best-all")
    assert best.tags["kdtune.key"] == better.key


def test_what_an_outage_left_half_written_is_written_anew(trained: TrialFiles, uri: str, tmp_path: Path) -> None:
    unsent, client = logged(uri, tmp_path, [(trained, None)], register=None)
    (model,) = models(client)
    # As after a crash between making the model and writing the last of its files.
    client.delete_logged_model(model.model_id)
    half = client.create_logged_model(
        model.experiment_id, "student", model.source_run_id, tags={"kdtune.key": trained.key}
    )
    unsent, client = logged(uri, tmp_path, [(trained, None)], register=None)
    assert unsent == []
    (again,) = models(client)
    assert again.model_id != half.model_id
    assert again.status == "READY"
    assert client.search_registered_models() == []


def test_a_student_without_weights_is_a_note_and_stops_no_other(
    trained: TrialFiles, tiny: TrialConfig, prepared: Session, uri: str, tmp_path: Path
) -> None:
    lost = train(tiny.model_copy(update={"seed": 2}), StoreFiles(tmp_path / "runs"), prepared)
    lost.checkpoint.unlink()
    (problem,), client = logged(uri, tmp_path, [(lost, None), (trained, None)])
    assert "the models of 1 trials" in problem
    assert "no longer has a checkpoint" in problem
    assert [model.tags["kdtune.key"] for model in models(client)] == [trained.key]
    (parent,) = [
        run for run in client.search_runs([models(client)[0].experiment_id]) if "kdtune.sweep" in run.data.tags
    ]
    assert parent.info.status == "FINISHED"


def test_an_action_head_names_its_logits(tiny: TrialConfig, prepared: Session, tmp_path: Path) -> None:
    config = tiny.model_copy(update={"loss": tiny.loss.model_copy(update={"target": "action"})})
    files = train(config, StoreFiles(tmp_path), prepared)
    student = trained_student(files)
    clips = prepared.clips(tiny)
    assert student.labels == clips.actions
    frames = torch.zeros(2, 1, config.clip.frames, config.clip.size, config.clip.size, 3, dtype=torch.uint8)
    with torch.no_grad():
        assert student(frames).shape == (2, len(clips.actions))


def test_only_what_is_whole_becomes_a_student(trained: TrialFiles, tmp_path: Path) -> None:
    from kdtune.errors import StoreError

    with pytest.raises(StoreError, match="not a complete trial"):
        trained_student(replace(trained, folder=tmp_path / "nothing"))
