"""Files that people look at, as artifacts of a sweep's own run: a report's page, plots and tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kdtune.tracking.location import prepare_environment
from kdtune.tracking.mlflow_errors import reason
from kdtune.urls import SecretUrl


def publish_files(uri: SecretUrl | str, experiment: str, sweep: str, folder: str, files: Iterable[Path]) -> list[str]:
    """Log `files` under `folder` (as in "report") among the artifacts of the sweep's run, over what is there.

    Returns:
        What could not be sent, in plain words; empty if MLflow has them all. Nothing is raised.
    """
    uri = SecretUrl.of(uri)
    try:
        prepare_environment()
        from kdtune.tracking.connection import Connection

        connection = Connection(uri, experiment)
        run_id = connection.parent(sweep)
        if run_id is None:
            return [f"MLflow ({uri}) has no run of the sweep {sweep}: `kdtune publish {sweep}` makes it"]
        for file in files:
            connection.client.log_artifact(run_id, str(file), folder)
    except Exception as error:  # whatever mlflow, its database or the network raise
        return [f"MLflow ({uri}) has not got {folder}/: {reason(error, uri)}"]
    return []
