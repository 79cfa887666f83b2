"""Log trained students as MLflow models and register the best. Imports torch only to write a model.

A model is identified by its run and its trial's key, so none is logged twice. It becomes READY only when it is
complete: a model that an outage left incomplete is deleted and logged again.
"""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from kdtune import __version__
from kdtune.scoped import kept_process, log_level
from kdtune.tracking.connection import Connection
from kdtune.tracking.ending import TrackedStudent
from kdtune.tracking.record import NOTE, latest_ms, param_values, row_metrics, rows_by_epoch

if TYPE_CHECKING:
    from kdtune.train.measuring.student import Student

#: Name of every model; a run has one.
NAME = "student"
KEY, VERSIONS = "kdtune.key", "mlflow.modelVersions"
REGISTERED = (
    "Students that kdtune trained. An alias `best-…` points to the best of each block of a sweep; every version says "
    "which trial it is and how to train it again."
)


def log_model(connection: Connection, run_id: str, student: TrackedStudent) -> str:
    """Log the student as a model of its trial's run unless it is there; return the model's id.

    Raises StoreError if the trial's weights are no longer in the store.
    """
    client = connection.client
    found = client.search_logged_models([connection.experiment_id], f"source_run_id = '{run_id}'")
    models = [model for model in found if model.tags.get(KEY) == student.key]
    ready = [model for model in models if model.status == LoggedModelStatus.READY]
    for model in models:
        if model not in ready:
            client.delete_logged_model(model.model_id)
    model = ready[0] if ready else _log(connection, run_id, student)
    outputs = client.get_run(run_id).outputs
    if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else ())]:
        last = max(rows_by_epoch(student.trial), default=0)
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, last)])
    return model.model_id


def register_model(client: MlflowClient, name: str, student: TrackedStudent, model_id: str) -> None:
    """Register the model as a version of `name` unless it is one, and point the student's alias to it."""
    assert student.alias is not None, "only a student with an alias is registered"
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description=REGISTERED)
    model = client.get_logged_model(model_id)
    source = model.artifact_location
    versions = client.search_model_versions(f"name = '{name}'")
    version = next((str(found.version) for found in versions if found.source == source), None)
    if version is None:
        tags, note = {KEY: student.key}, _note(student)
        made = client.create_model_version(name, source, model.source_run_id, tags, None, note, model_id=model_id)
        version = str(made.version)
    # MLflow's own registration sets this tag, which links the model's page to the registry.
    client.set_logged_model_tags(model_id, {VERSIONS: json.dumps([{"name": name, "version": version}])})
    client.set_registered_model_alias(name, student.alias, version)


def _note(student: TrackedStudent) -> str:
    """Return the description of a student."""
    tuned = ", after fine-tuning" if student.finetuned else ""
    return f"The student{tuned}. Its trial: {student.trial.tags.get(NOTE, student.trial.name)}"


def _log(connection: Connection, run_id: str, wanted: TrackedStudent) -> LoggedModel:
    with kept_process():
        import mlflow.pytorch

    from kdtune.train.measuring.student import trained_student

    student, client = trained_student(wanted.files), connection.client
    result = wanted.files.result() or {}
    about = {KEY: wanted.key, "kdtune.weights_sha256": result["weights_sha256"]}
    tags, params = {**about, NOTE: _note(wanted)}, {**param_values(wanted.trial), "key": wanted.key}
    model = client.create_logged_model(connection.experiment_id, NAME, run_id, tags, params)
    described = Model(
        artifact_path=model.artifact_location,
        run_id=run_id,
        model_uuid=model.model_id,
        model_id=model.model_id,
        metadata={**about, "labels": list(student.labels)},
    )
    # It warns of pickle each time. The weights are our own, and loading a model means trusting who logged it.
    with (
        log_level("mlflow.pytorch", logging.ERROR),
        tempfile.TemporaryDirectory(prefix="kdtune-model-") as folder,
    ):
        place = Path(folder) / NAME
        mlflow.pytorch.save_model(
            student,
            str(place),
            mlflow_model=described,
            serialization_format="pickle",
            pip_requirements=_requirements(),
            **_example(student),
        )
        client.log_model_artifacts(model.model_id, str(place))
    _log_metrics(client, run_id, model.model_id, wanted)
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _example(student: Student) -> dict[str, Any]:
    """Return a signature and an input example for it: frames of random pixels with a fixed seed."""
    import numpy as np

    shape = (student.clips, student.frames, student.size, student.size, 3)
    frames = np.random.default_rng(0).integers(0, 256, (1, *shape), dtype=np.uint8)
    inputs = Schema([TensorSpec(np.dtype(np.uint8), (-1, *shape))])
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, student.network.head.out_features))])
    return {"input_example": frames, "signature": ModelSignature(inputs, outputs)}


def _requirements() -> list[str]:
    """Return the packages that a model needs. Without the list MLflow would load the model in a process to find out."""
    torch, torchvision = (version(name).partition("+")[0] for name in ("torch", "torchvision"))
    return [f"kdtune=={__version__}", f"torch=={torch}", f"torchvision=={torchvision}", f"mlflow=={version('mlflow')}"]


def _log_metrics(client: MlflowClient, run_id: str, model_id: str, student: TrackedStudent) -> None:
    """Log the metrics of its last epoch as the model's own, for its page and the table of models."""
    trial = student.trial if student.finetuned else replace(student.trial, finetuned=None)
    rows = rows_by_epoch(trial)
    if rows:
        last, at_ms = max(rows), latest_ms(rows)
        values = row_metrics(rows[last]).items()
        client.log_batch(run_id, [Metric(name, value, at_ms, last, model_id=model_id) for name, value in values])
