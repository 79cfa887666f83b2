"""Every use of MLflow's private parts, with the reason."""

from __future__ import annotations

from pathlib import Path

import mlflow

from kdtune.errors import Problem, UserError
from kdtune.urls import SecretUrl


def make_tables(uri: SecretUrl, artifacts: Path | None) -> None:
    """Make a SQLite database's missing tables.

    MLflow's client makes them only for a process's first client of a URI, and not again if the file was deleted since;
    the constructor of its store always checks. Raises UserError if this MLflow has no such store.
    """
    try:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(uri.reveal(), str(artifacts))
    except (ImportError, TypeError) as error:
        what = f"kdtune does not know MLflow {mlflow.__version__}: {error}"
        raise UserError([Problem("MLflow", what, "the version in constraints.txt")]) from error
