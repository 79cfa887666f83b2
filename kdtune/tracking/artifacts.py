"""Log a report's page, plots and tables as artifacts of the sweep's parent run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kdtune.tracking.location import prepare_environment
from kdtune.tracking.mlflow_errors import reason
from kdtune.urls import SecretUrl


def publish_files(uri: SecretUrl | str, experiment: str, sweep: str, folder: str, files: Iterable[Path]) -> list[str]:
    """Log `files` under `folder` (such as "report") in the artifacts of the sweep's run, replacing earlier ones.

    Returns:
        What could not be sent, in plain words; empty if MLflow has them all. Raises nothing.
    """
    uri = SecretUrl.of(uri)
    try:
        prepare_environment()
        from kdtune.tracking.connection import Connection

        connection = Connection(uri, experiment)
        run_id = connection.parent(sweep)
        if run_id is None:
            return [f"MLflow ({uri}) has no run of the sweep {sweep}: `kdtune publish {sweep}` makes one"]
        for file in files:
            connection.client.log_artifact(run_id, str(file), folder)
    except Exception as error:  # mlflow, its database and the network raise many kinds
        return [f"MLflow ({uri}) did not receive {folder}/: {reason(error, uri)}"]
    return []
