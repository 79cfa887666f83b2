"""All that is used of MLflow's private parts, with the reason."""

from __future__ import annotations

from pathlib import Path

import mlflow

from kdtune.errors import Problem, UserError
from kdtune.urls import SecretUrl


def make_tables(uri: SecretUrl, artifacts: Path | None) -> None:
    """Make a SQLite database's tables where they are missing.

    MLflow's client makes them once a process, for the first client of a URI alone: not again in a database file that
    was deleted since. Only its store's constructor always looks. Raises UserError where this MLflow has none such.
    """
    try:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(uri.reveal(), str(artifacts))
    except (ImportError, TypeError) as error:
        what = f"MLflow {mlflow.__version__} is not one that kdtune knows: {error}"
        raise UserError([Problem("MLflow", what, "the version in constraints.txt")]) from error
