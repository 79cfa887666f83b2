"""One connection to MLflow: finds or makes the runs of a sweep and adds what they lack. Imports mlflow: seconds.

Everything is found again by what it is (the parent by the tag kdtune.sweep, a trial's run by kdtune.key), so a second
process, or this one after an outage, goes on with the same runs. What a run already has is asked for once; a row whose
answer got lost on the way may be sent twice, and MLflow keeps it once, since its time and value are the same.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, Run, RunTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from kdtune.tracking.location import artifact_folder, database_lock, database_path
from kdtune.tracking.ranking import Ranking, saved_view
from kdtune.tracking.record import (
    ENDED,
    MARKER,
    STATUS,
    TrackedTrial,
    latest_ms,
    outcome_tags,
    param_values,
    row_metrics,
    rows_by_epoch,
    started_ms,
)

PARENT, NOTE, SWEEP, KEY = "mlflow.parentRunId", "mlflow.note.content", "kdtune.sweep", "kdtune.key"
CACHED = "kdtune.cached"
#: MLflow stores a request's metrics whole or not at all; it takes 1000 entities a request, params and tags included.
MAX_METRICS = 800
#: A run comes with all its metrics, a quarter of a MiB in memory for a short one.
RUNS_PER_PAGE = 200


@dataclass(frozen=True)
class SweepText:
    """What the parent run says of its sweep."""

    name: str
    question: str
    config_text: str
    ranking: Ranking | None


@dataclass
class _KnownRun:
    """What MLflow has of one trial, as far as this connection knows."""

    run_id: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    objective: float | None
    epochs: set[int] | None = None
    """Which it has; None until it was asked."""
    has_config: bool = False


class View:
    """The runs of one sweep, or of single trials where `sweep` is None. For one thread.

    Args:
        known: trials known so far; a parent run that has to be made starts no later than the first of them.

    Raises:
        Exception: whatever mlflow, its database or the network raise, here and in every method. The view is then to
            be thrown away and a new one made, which finds out anew what is there.
    """

    def __init__(self, uri: str, experiment: str, sweep: SweepText | None, known: Iterable[TrackedTrial]) -> None:
        _make_tables(uri)
        self._client = MlflowClient(tracking_uri=uri)
        self._experiment_id = self._experiment(uri, experiment)
        self._sweep = sweep
        self.parent_id = None if sweep is None else self._parent(sweep, known)
        self._runs: dict[str, _KnownRun] = {}
        if self.parent_id is not None:
            children = self._search(f"tags.`{PARENT}` = '{self.parent_id}'")
            self._runs = {run.data.tags[KEY]: _known(run) for run in children if KEY in run.data.tags}

    @property
    def run_ids(self) -> dict[str, str]:
        """Trial key → run id, and "parent" → the parent's."""
        parent = {} if self.parent_id is None else {"parent": self.parent_id}
        return parent | {key: run.run_id for key, run in self._runs.items()}

    def send(self, trial: TrackedTrial) -> None:
        """Bring the trial's run up to what its files say now."""
        rows = rows_by_epoch(trial.files)
        if trial.state == "pending" and not rows:
            return  # It has no figures yet, and a cancelled sweep would leave an empty run.
        run = self._run(trial, started_ms(rows))
        params = {name: value for name, value in param_values(trial).items() if name not in run.params}
        tags = {name: value for name, value in outcome_tags(trial, rows).items() if run.tags.get(name, "") != value}
        if CACHED in run.tags:
            tags.pop(CACHED, None)  # it is of the first time: later every trial is found
        objective = None if trial.objective == run.objective else trial.objective
        if not params and not tags and objective is None and run.status in ENDED and run.status == STATUS[trial.state]:
            return  # The tags come with the last rows, and the status after them: it has everything.
        # First, for MLflow looks the run up for it, with the metrics that it has.
        if not run.has_config and trial.files.config.exists():
            self._client.log_text(run.run_id, trial.files.config.read_text(), "config.json")
            run.has_config = True
        if run.epochs is None:
            run.epochs = {metric.step for metric in self._client.get_metric_history(run.run_id, MARKER)}
        fresh: list[Metric] = []
        for epoch in sorted(set(rows) - run.epochs):
            at_ms = int(rows[epoch]["at"] * 1000)
            metrics = [Metric(name, value, at_ms, epoch) for name, value in row_metrics(rows[epoch]).items()]
            if len(fresh) + len(metrics) > MAX_METRICS:
                # Rows are never torn between requests, so that one metric tells which epochs are there.
                self._client.log_batch(run.run_id, metrics=fresh)
                fresh = []
            fresh += metrics
        if objective is not None:
            # Of two values at one step and time MLflow's table shows the larger one, so a changed objective is later.
            at_ms = latest_ms(rows if run.objective is None else {})
            fresh.append(Metric("objective", objective, at_ms, max(rows, default=0)))
            run.objective = objective
        # One request, for each is several transactions and takes longer than what is in it.
        named, told = [Param(*param) for param in params.items()], [RunTag(*tag) for tag in tags.items()]
        self._client.log_batch(run.run_id, fresh, named, told)
        run.params |= params
        run.epochs |= set(rows)
        run.tags |= tags
        self._set_status(run, STATUS[trial.state], latest_ms(rows))

    def finish(self, state: str, summary: str) -> None:
        """Leave nothing of this sweep RUNNING: what has not ended was interrupted, and the parent ends with `state`."""
        for run in self._runs.values():
            if run.status not in ENDED:
                self._client.set_tag(run.run_id, "kdtune.state", "interrupted")
                self._set_status(run, STATUS["interrupted"], int(time.time() * 1000))
        if self._sweep is not None and self.parent_id is not None:
            note = "\n\n".join(text for text in (self._sweep.question, summary) if text)
            tags = [RunTag(NOTE, note), RunTag("kdtune.state", state)]
            self._client.log_batch(self.parent_id, tags=tags)
            self._client.set_terminated(self.parent_id, STATUS[state])

    def _set_status(self, run: _KnownRun, status: str, at_ms: int) -> None:
        if status == run.status:
            return
        if status in ENDED:
            self._client.set_terminated(run.run_id, status, end_time=at_ms)
        else:
            self._client.update_run(run.run_id, status=status)
        run.status = status

    def _experiment(self, uri: str, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            folder = artifact_folder(uri)
            # Without the kind, MLflow's pages guess, and may open on traces of language models.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            return self._client.create_experiment(name, None if folder is None else str(folder), tags)
        if found.lifecycle_stage == LifecycleStage.DELETED:
            # A deleted experiment keeps its name, so no other could be made in its place.
            self._client.restore_experiment(found.experiment_id)
        return found.experiment_id

    def _parent(self, sweep: SweepText, known: Iterable[TrackedTrial]) -> str:
        found = [run for run in self._search(f"tags.`{SWEEP}` = '{sweep.name}'") if PARENT not in run.data.tags]
        if found:
            run_id, start_ms = found[-1].info.run_id, found[-1].info.start_time
            self._client.update_run(run_id, status="RUNNING")
        else:
            start_ms = min((started_ms(rows_by_epoch(trial.files)) for trial in known), default=int(time.time() * 1000))
            tags = {SWEEP: sweep.name, NOTE: sweep.question, "mlflow.source.name": "kdtune sweep"}
            run_id = self._client.create_run(self._experiment_id, start_ms, tags, sweep.name).info.run_id
        self._client.set_tag(run_id, "kdtune.state", "running")
        self._client.log_text(run_id, sweep.config_text, "sweep.yaml")
        if sweep.ranking is not None:
            view = saved_view(sweep.name, run_id, sweep.ranking, start_ms)
            self._client.set_experiment_tag(self._experiment_id, *view)
        return run_id

    def _run(self, trial: TrackedTrial, start_ms: int) -> _KnownRun:
        params = param_values(trial)
        known = self._runs.get(trial.key)
        if known is None and self.parent_id is None:
            alone = [run for run in self._search(f"tags.`{KEY}` = '{trial.key}'") if PARENT not in run.data.tags]
            known = _known(alone[-1]) if alone else None
        if known is not None and any(params.get(name, value) != value for name, value in known.params.items()):
            # MLflow cannot change a param (a teacher was renamed in the sweep file, say): the run is made anew.
            self._client.delete_run(known.run_id)
            known = None
        if known is None:
            tags = {KEY: trial.key, "mlflow.source.name": "kdtune"}
            if self.parent_id is not None:
                tags[PARENT] = self.parent_id
            known = _known(self._client.create_run(self._experiment_id, start_ms, tags, trial.name))
            known.epochs = set()
        self._runs[trial.key] = known
        return known

    def _search(self, condition: str) -> Iterator[Run]:
        """The experiment's runs that are not deleted, latest first."""
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id], condition, max_results=RUNS_PER_PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return


def _known(run: Run) -> _KnownRun:
    data = run.data
    return _KnownRun(
        run.info.run_id, run.info.status, dict(data.params), dict(data.tags), data.metrics.get("objective")
    )


def _make_tables(uri: str) -> None:
    """Make a SQLite database's tables where they are missing, also when the file was deleted under this process."""
    database = database_path(uri)
    with contextlib.nullcontext() if database is None else database_lock(database):
        if database is not None:
            SqlAlchemyStore(uri, str(artifact_folder(uri)))
