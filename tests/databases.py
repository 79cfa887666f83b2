"""MLflow databases for tests: making one takes MLflow's whole history of migrations, so it is done once."""

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
    """Put a database without runs at `path`, where there is none, and return its URI."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_empty())
    return f"sqlite:///{path}"
