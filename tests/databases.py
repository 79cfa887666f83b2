"""MLflow databases for tests. A new one runs MLflow's whole history of migrations, so one is made and copied."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from kdtune.tracking.location import prepare_environment


@cache
def _empty() -> bytes:
    prepare_environment()
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory() as folder:
        MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db").search_experiments()
        return (Path(folder) / "mlflow.db").read_bytes()


def empty_database(path: Path) -> str:
    """Create a database without runs at `path`, unless there is one, and return its URI."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_empty())
    return f"sqlite:///{path}"
