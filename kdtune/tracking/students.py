"""Trained students as MLflow models, and the best of them in its registry. torch is imported where one is written.

A model is found again by its run and its trial's key, so none is logged twice. It is READY only when all of it is
there: what an outage left half-written is deleted, and written anew.
"""

from __future__ import annotations

import json
import logging
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from kdtune import __version__
from kdtune.tracking.connection import Connection
from kdtune.tracking.record import TrackedTrial, latest_ms, param_values, row_metrics, rows_by_epoch

if TYPE_CHECKING:
    from kdtune.train.student import Student

#: Of every model; a run has one.
NAME = "student"
KEY, VERSIONS = "kdtune.key", "mlflow.modelVersions"


def log_model(connection: Connection, run_id: str, trial: TrackedTrial) -> str:
    """The id of the run's model, which is logged where it is not there yet.

    Raises StoreError where the trial's weights are not in the store any more.
    """
    client = connection.client
    models = client.search_logged_models([connection.experiment_id], f"source_run_id = '{run_id}'")
    ready = [model for model in models if model.status == LoggedModelStatus.READY and model.tags.get(KEY) == trial.key]
    for model in models:
        if model not in ready and model.tags.get(KEY) == trial.key:
            client.delete_logged_model(model.model_id)
    model = ready[0] if ready else _log(connection, run_id, trial)
    outputs = client.get_run(run_id).outputs
    if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else ())]:
        last = max(rows_by_epoch(trial.files), default=0)
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, last)])
    return model.model_id


def register_model(client: MlflowClient, name: str, alias: str, model_id: str, key: str) -> None:
    """Give the model a version under `name`, once, and let `alias` point to it."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    model = client.get_logged_model(model_id)
    source = model.artifact_location
    versions = client.search_model_versions(f"name = '{name}'")
    version = next((str(found.version) for found in versions if found.source == source), None)
    if version is None:
        made = client.create_model_version(name, source, model.source_run_id, tags={KEY: key}, model_id=model_id)
        version = str(made.version)
    # As MLflow's own registering does: the model's page leads to the registry.
    client.set_logged_model_tags(model_id, {VERSIONS: json.dumps([{"name": name, "version": version}])})
    client.set_registered_model_alias(name, alias, version)


def _log(connection: Connection, run_id: str, trial: TrackedTrial) -> LoggedModel:
    import mlflow.pytorch

    from kdtune.train.student import trained_student

    student, client = trained_student(trial.files), connection.client
    result = trial.files.result() or {}
    about = {KEY: trial.key, "kdtune.weights_sha256": result["weights_sha256"]}
    model = client.create_logged_model(connection.experiment_id, NAME, run_id, about, param_values(trial))
    described = Model(
        artifact_path=model.artifact_location,
        run_id=run_id,
        model_uuid=model.model_id,
        model_id=model.model_id,
        metadata={**about, "labels": list(student.labels)},
    )
    # It warns of pickle each time. The weights are our own, and whoever loads a model trusts who logged it.
    logging.getLogger("mlflow.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="kdtune-model-") as folder:
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
    _log_metrics(client, run_id, model.model_id, trial)
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _example(student: Student) -> dict[str, Any]:
    """A signature and an input that fits it: frames of random pixels, always the same."""
    import numpy as np

    shape = (student.clips, student.frames, student.size, student.size, 3)
    frames = np.random.default_rng(0).integers(0, 256, (1, *shape), dtype=np.uint8)
    inputs = Schema([TensorSpec(np.dtype(np.uint8), (-1, *shape))])
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, student.network.head.out_features))])
    return {"input_example": frames, "signature": ModelSignature(inputs, outputs)}


def _requirements() -> list[str]:
    """What a model needs where it is loaded. Said here, for MLflow would load it in another process to find out."""
    torch, torchvision = (version(name).partition("+")[0] for name in ("torch", "torchvision"))
    return [f"kdtune=={__version__}", f"torch=={torch}", f"torchvision=={torchvision}", f"mlflow=={version('mlflow')}"]


def _log_metrics(client: MlflowClient, run_id: str, model_id: str, trial: TrackedTrial) -> None:
    """The last epoch's metrics once more, as the model's own: its page and the table of models show them."""
    rows = rows_by_epoch(trial.files)
    if rows:
        last, at_ms = max(rows), latest_ms(rows)
        values = row_metrics(rows[last]).items()
        client.log_batch(run_id, [Metric(name, value, at_ms, last, model_id=model_id) for name, value in values])
