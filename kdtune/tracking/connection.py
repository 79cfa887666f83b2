"""MLflow's client with the database tables, the experiment and a sweep's runs. Imports mlflow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run

from kdtune.tracking.location import artifact_folder, client_uri, database_lock, database_path
from kdtune.tracking.mlflow_private import make_tables
from kdtune.tracking.record import NOTE
from kdtune.urls import SecretUrl

PARENT, SWEEP = "mlflow.parentRunId", "kdtune.sweep"
#: The description of an experiment.
ABOUT = (
    "Sweeps of kdtune. A sweep is a run, and its trials are the runs below it. Its description has the question and "
    "the result. `python -m kdtune ui` prints a link to each sweep's table, best first."
)
#: Small pages: a run comes with all its metrics, a quarter of a MiB in memory for a short one.
RUNS_PER_PAGE = 200


class Connection:
    """A client and an experiment, made if it is missing. Passes on any exception of mlflow or the network."""

    def __init__(self, uri: SecretUrl | str, experiment: str) -> None:
        self.uri = SecretUrl.of(uri)
        _make_tables(self.uri)
        self.client = MlflowClient(tracking_uri=client_uri(self.uri))
        self.experiment_id = self._experiment(experiment)

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            folder = artifact_folder(self.uri)
            # Without this tag MLflow's pages guess the kind, and may open on traces of language models.
            tags = {"mlflow.experimentKind": "custom_model_development", NOTE: ABOUT}
            return self.client.create_experiment(name, None if folder is None else str(folder), tags)
        if found.lifecycle_stage == LifecycleStage.DELETED:
            # A deleted experiment still occupies its name, so a new one cannot be made.
            self.client.restore_experiment(found.experiment_id)
        if NOTE not in found.tags:
            self.client.set_experiment_tag(found.experiment_id, NOTE, ABOUT)
        return found.experiment_id

    def search(self, condition: str) -> Iterator[Run]:
        """Yield the experiment's runs that are not deleted, latest first."""
        token: str | None = None
        while True:
            page = self.client.search_runs([self.experiment_id], condition, max_results=RUNS_PER_PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def children(self, parent_id: str) -> Iterator[Run]:
        """Yield the runs below a sweep's parent run."""
        return self.search(f"tags.`{PARENT}` = '{parent_id}'")

    def parent(self, sweep: str, ours: str | None = None) -> str | None:
        """Return the id of the sweep's parent run, which is `ours` if that is known; None if there is none.

        If the answer to its creation was lost, there are two: the one without runs below it is deleted.
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
    """Make a SQLite database's missing tables, even if the file was deleted while this process used it."""
    database = database_path(uri)
    with contextlib.nullcontext() if database is None else database_lock(database):
        if database is not None:
            make_tables(uri, artifact_folder(uri))
