"""MLflow's client with what all of kdtune's writing needs: tables, the experiment, a sweep's runs. Imports mlflow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run

from kdtune.tracking.location import artifact_folder, client_uri, database_lock, database_path
from kdtune.tracking.mlflow_private import make_tables
from kdtune.urls import SecretUrl

PARENT, SWEEP = "mlflow.parentRunId", "kdtune.sweep"
#: A run comes with all its metrics, a quarter of a MiB in memory for a short one.
RUNS_PER_PAGE = 200


class Connection:
    """One client and one experiment, which is made where it is missing. Raises whatever mlflow or the network raise."""

    def __init__(self, uri: SecretUrl | str, experiment: str) -> None:
        self.uri = SecretUrl.of(uri)
        _make_tables(self.uri)
        self.client = MlflowClient(tracking_uri=client_uri(self.uri))
        self.experiment_id = self._experiment(experiment)

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            folder = artifact_folder(self.uri)
            # Without the kind, MLflow's pages guess, and may open on traces of language models.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            return self.client.create_experiment(name, None if folder is None else str(folder), tags)
        if found.lifecycle_stage == LifecycleStage.DELETED:
            # A deleted experiment keeps its name, so no other could be made in its place.
            self.client.restore_experiment(found.experiment_id)
        return found.experiment_id

    def search(self, condition: str) -> Iterator[Run]:
        """The experiment's runs that are not deleted, latest first."""
        token: str | None = None
        while True:
            page = self.client.search_runs([self.experiment_id], condition, max_results=RUNS_PER_PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def children(self, parent_id: str) -> Iterator[Run]:
        """The runs below a sweep's."""
        return self.search(f"tags.`{PARENT}` = '{parent_id}'")

    def parent(self, sweep: str, ours: str | None = None) -> str | None:
        """The id of the sweep's own run, which is `ours` where that is known.

        Where the answer to its making got lost there are two of them: one without runs below it is deleted.
        """
        found = [run.info.run_id for run in self.search(f"tags.`{SWEEP}` = '{sweep}'") if PARENT not in run.data.tags]
        if len(found) < 2:
            return found[0] if found else None
        used = [run_id for run_id in found if next(self.children(run_id), None) is not None]
        kept = ours if ours in found else (used or found)[-1]
        for run_id in set(found) - {*used, kept}:
            self.client.delete_run(run_id)
        return kept


def _make_tables(uri: SecretUrl) -> None:
    """Make a SQLite database's tables where they are missing, also when the file was deleted under this process."""
    database = database_path(uri)
    with contextlib.nullcontext() if database is None else database_lock(database):
        if database is not None:
            make_tables(uri, artifact_folder(uri))
