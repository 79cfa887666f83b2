"""A connection to MLflow that finds or makes the runs of a sweep and adds what they lack. Imports mlflow (seconds).

Tags identify the runs (the parent by kdtune.sweep, a trial's by kdtune.key), so a second process, or this one after an
outage, continues with the same runs. What a run already has is asked for once. A row whose answer is lost is sent again
and kept once: its time and value are equal. A run whose answer is lost is made again, and the unused one is deleted.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag

from kdtune.tracking.connection import PARENT, SWEEP, Connection
from kdtune.tracking.datasets import data_inputs
from kdtune.tracking.ending import TrackedStudent
from kdtune.tracking.ranking import saved_view
from kdtune.tracking.record import (
    ENDED,
    MACHINE_MARKER,
    MARKER,
    NOTE,
    STATUS,
    TrackedTrial,
    latest_ms,
    machine_by_epoch,
    machine_metrics,
    outcome_tags,
    param_values,
    recipe_values,
    row_metrics,
    rows_by_epoch,
    started_ms,
)
from kdtune.tracking.sweep_text import SweepResult, SweepText
from kdtune.urls import SecretUrl

KEY, CONTEXT = "kdtune.key", "mlflow.data.context"
#: Tags that keep their first values: a later run of the sweep finds every trial cached, perhaps from another commit,
#: and a description may have been edited.
FIRST = ("kdtune.cached", "mlflow.source.git.commit", "kdtune.git.dirty", NOTE)
#: Metrics per request. MLflow stores all of a request's or none, and accepts 1000 entities, params and tags included.
MAX_METRICS = 800


@dataclass
class _KnownRun:
    """What MLflow has of a trial, as far as this connection knows."""

    run_id: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    objective: float | None
    has_data: bool
    epochs: set[int] | None = None
    """Epochs that MLflow has; None until it was asked."""
    machine: set[int] = field(default_factory=set)
    """Epochs of which MLflow has the machine's metrics; asked for with the epochs."""
    has_config: set[str] = field(default_factory=set)
    """Keys of the trials whose configuration this connection has sent."""


class View:
    """The runs of a sweep, or of single trials if `sweep` is None. Not thread-safe.

    Args:
        known: trials known so far; a new parent run starts no later than the first of them.

    Raises:
        Exception: any exception of mlflow, its database or the network, here and in every method. Then discard the
            view and make a new one, which asks MLflow again.
    """

    def __init__(
        self, uri: SecretUrl | str, experiment: str, sweep: SweepText | None, known: Iterable[TrackedTrial]
    ) -> None:
        self._connection = Connection(uri, experiment)
        self._client, self._experiment_id = self._connection.client, self._connection.experiment_id
        self._sweep = sweep
        self._latest_ms = 0
        """End of the last epoch that was sent, in Unix milliseconds."""
        self.parent_id = None if sweep is None else self._parent(sweep, known)
        self._runs: dict[str, _KnownRun] = {}
        if self.parent_id is not None:
            for run in self._connection.children(self.parent_id):
                if KEY in run.data.tags:
                    self._take(run)

    @property
    def run_ids(self) -> dict[str, str]:
        """Trial key → run id, and "parent" → the parent's run id."""
        parent = {} if self.parent_id is None else {"parent": self.parent_id}
        return parent | {key: run.run_id for key, run in self._runs.items()}

    def send(self, trial: TrackedTrial) -> None:
        """Bring the trial's run up to date with its files."""
        rows = rows_by_epoch(trial)
        if trial.state == "pending" and not rows:
            return  # It has no figures yet: a cancelled sweep would leave an empty run.
        self._latest_ms = max(self._latest_ms, latest_ms(rows))
        run = self._run(trial, started_ms(rows))
        begun = [files for files, _, _ in trial.phases if files.key not in run.has_config and files.config.exists()]
        values = {**(recipe_values(trial) if begun else {}), **param_values(trial)}
        params = {name: value for name, value in values.items() if name not in run.params}
        tags = {name: value for name, value in outcome_tags(trial, rows).items() if run.tags.get(name, "") != value}
        for name in run.tags.keys() & FIRST:
            tags.pop(name, None)
        objective = None if trial.objective == run.objective else trial.objective
        inputs = [] if run.has_data else data_inputs(trial.files)
        ended = run.status in ENDED and run.status == STATUS[trial.state]
        if not params and not tags and not inputs and objective is None and ended:
            return  # The tags come with the last rows and the status after them, so MLflow has everything.
        # First: MLflow looks the run up for it, with all of its metrics, which are fewest now.
        for files in begun:
            name = "config.json" if files.key == trial.key else "finetune/config.json"
            self._client.log_text(run.run_id, files.config.read_text(encoding="utf-8"), name)
            run.has_config.add(files.key)
        if inputs:
            datasets = [Dataset(i.name, i.digest, "local", i.source, i.schema, i.profile) for i in inputs]
            contexts = [[InputTag(CONTEXT, i.context)] for i in inputs]
            self._client.log_inputs(run.run_id, [DatasetInput(*both) for both in zip(datasets, contexts, strict=True)])
            run.has_data = True
        fresh = self._send_rows(run, trial, rows)
        if objective is not None:
            # MLflow's table shows the larger of two values at one step and time, so a changed objective gets a later
            # time.
            at_ms = latest_ms(rows if run.objective is None else {})
            fresh.append(Metric("objective", objective, at_ms, max(rows, default=0)))
            run.objective = objective
        # One request: each one costs several transactions, more than its content.
        new_params, new_tags = [Param(*param) for param in params.items()], [RunTag(*tag) for tag in tags.items()]
        self._client.log_batch(run.run_id, fresh, new_params, new_tags)
        run.params |= params
        run.tags |= tags
        self._set_status(run, STATUS[trial.state], latest_ms(rows))

    def _send_rows(self, run: _KnownRun, trial: TrackedTrial, rows: Mapping[int, Mapping]) -> list[Metric]:
        """Send the metrics that the run lacks; return those that are left for the last request."""
        if run.epochs is None:
            run.epochs, run.machine = self._steps(run, MARKER), self._steps(run, MACHINE_MARKER)
        machine = machine_by_epoch(trial)
        lacking = [(rows[epoch], row_metrics) for epoch in sorted(rows.keys() - run.epochs)]
        lacking += [(machine[epoch], machine_metrics) for epoch in sorted(machine.keys() - run.machine)]
        fresh: list[Metric] = []
        for row, metrics_of in lacking:
            at_ms, epoch = int(row["at"] * 1000), row["epoch"]
            metrics = [Metric(name, value, at_ms, epoch) for name, value in metrics_of(row).items()]
            if len(fresh) + len(metrics) > MAX_METRICS:
                # A row is never split between requests, so one metric shows which epochs MLflow has.
                self._client.log_batch(run.run_id, metrics=fresh)
                fresh = []
            fresh += metrics
        # If a request fails, this view is discarded with its beliefs.
        run.epochs |= rows.keys()
        run.machine |= machine.keys()
        return fresh

    def _steps(self, run: _KnownRun, metric: str) -> set[int]:
        return {entry.step for entry in self._client.get_metric_history(run.run_id, metric)}

    def finish(self, state: str, result: SweepResult) -> None:
        """End every run of the sweep: trials that have not ended become interrupted, and the parent gets `state` and
        the result."""
        if self.parent_id is not None:
            # A run whose creation's answer was lost would stay RUNNING: find it too.
            running = f"tags.`{PARENT}` = '{self.parent_id}' AND attributes.status = 'RUNNING'"
            for found in list(self._connection.search(running)):
                if KEY in found.data.tags:
                    self._take(found)
        for run in self._runs.values():
            if run.status not in ENDED:
                self._client.set_tag(run.run_id, "kdtune.state", "interrupted")
                self._set_status(run, STATUS["interrupted"], int(time.time() * 1000))
        if self._sweep is None or self.parent_id is None:
            return
        self._connection.parent(self._sweep.name, self.parent_id)
        note = "\n\n".join(filter(None, (self._sweep.question, result.text)))
        tags = {NOTE: note, "kdtune.state": state, "kdtune.verdict": result.verdict}
        # A changed value gets the time of now: of two values of one metric MLflow shows the later one.
        known = self._client.get_run(self.parent_id).data.metrics
        at_ms = {name: int(time.time() * 1000) if name in known else self._latest_ms for name in result.metrics}
        metrics = [Metric(name, v, at_ms[name], 0) for name, v in result.metrics.items() if known.get(name) != v]
        self._client.log_batch(self.parent_id, metrics, tags=[RunTag(*tag) for tag in tags.items()])
        self._client.set_terminated(self.parent_id, STATUS[state], end_time=self._latest_ms or None)

    def log_student(self, student: TrackedStudent, register: str | None) -> None:
        """Log the trial's student as a model of its run, once; register it if it has an alias."""
        from kdtune.tracking.students import log_model, register_model

        if student.trial.key not in self._runs:
            self.send(student.trial)
        model_id = log_model(self._connection, self._runs[student.trial.key].run_id, student)
        if register is not None and student.alias is not None:
            register_model(self._client, register, student, model_id)

    def _set_status(self, run: _KnownRun, status: str, at_ms: int) -> None:
        if status == run.status:
            return
        if status in ENDED:
            self._client.set_terminated(run.run_id, status, end_time=at_ms)
        else:
            self._client.update_run(run.run_id, status=status)
        run.status = status

    def _parent(self, sweep: SweepText, known: Iterable[TrackedTrial]) -> str:
        run_id = self._connection.parent(sweep.name)
        if run_id is not None:
            self._client.update_run(run_id, status="RUNNING")
        else:
            start_ms = min((started_ms(rows_by_epoch(trial)) for trial in known), default=int(time.time() * 1000))
            tags = {SWEEP: sweep.name, NOTE: sweep.question, "mlflow.source.name": "kdtune sweep"}
            run_id = self._client.create_run(self._experiment_id, start_ms, tags, sweep.name).info.run_id
        tags = {**sweep.tags, "kdtune.state": "running"}
        self._client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()])
        self._client.log_text(run_id, sweep.config_text, "sweep.yaml")
        if sweep.ranking is not None:
            view = saved_view(sweep.name, run_id, sweep.ranking, int(time.time() * 1000))
            self._client.set_experiment_tag(self._experiment_id, *view)
        return run_id

    def _run(self, trial: TrackedTrial, start_ms: int) -> _KnownRun:
        params = param_values(trial)
        known = self._runs.get(trial.key)
        if known is None and self.parent_id is None:
            found = self._connection.search(f"tags.`{KEY}` = '{trial.key}'")
            alone = [run for run in found if PARENT not in run.data.tags]
            known = _known(alone[-1]) if alone else None
        if known is not None and any(params.get(name, value) != value for name, value in known.params.items()):
            # MLflow cannot change a param (say, of a teacher renamed in the sweep file): make the run again.
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

    def _take(self, run: Run) -> None:
        """Adopt a run of the sweep. If a trial has two, delete the one with fewer tags."""
        key, found = run.data.tags[KEY], _known(run)
        known = self._runs.setdefault(key, found)
        if known.run_id == found.run_id:
            return
        if len(found.tags) > len(known.tags):
            self._runs[key], found = found, known
        self._client.delete_run(found.run_id)


def _known(run: Run) -> _KnownRun:
    data = run.data
    has_data = bool(run.inputs is not None and run.inputs.dataset_inputs)
    return _KnownRun(
        run.info.run_id, run.info.status, dict(data.params), dict(data.tags), data.metrics.get("objective"), has_data
    )
