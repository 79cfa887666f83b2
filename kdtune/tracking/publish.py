"""The only writer to MLflow (DESIGN 4.7): a thread of the driver process. Trials know nothing of MLflow.

The store is the truth and MLflow a view of it. `Publisher.update` only notes that a trial has news; the thread reads
the trial's files and sends what MLflow lacks, about once a second. MLflow may be down, slow or deleted: the sweep does
not wait and nothing is raised. Missing figures are sent when MLflow is back, at the latest when the same command runs
again. The thread imports mlflow, which takes seconds; importing this module is cheap.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING

from kdtune.scoped import kept_process
from kdtune.store.files import append_jsonl, read_jsonl
from kdtune.tracking.ending import Students, TrackedStudent
from kdtune.tracking.location import prepare_environment
from kdtune.tracking.mlflow_errors import reason
from kdtune.tracking.record import TrackedTrial
from kdtune.tracking.sweep_text import SweepResult, SweepText
from kdtune.urls import SecretUrl

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from kdtune.tracking.view import View

BATCH_S = 1.0
"""Seconds for which news is collected before it is sent."""
MAX_RETRY_S = 30.0
"""Maximum pause between two attempts to reach MLflow, in seconds."""

__all__ = ["Publisher", "TrackedTrial", "publish_trial", "read_run_ids"]


class Publisher:
    """Keeps a sweep's runs in MLflow up to date: a parent run, and a run below it for each trial.

    Args:
        uri: MLflow's tracking URI.
        experiment: name of the MLflow experiment, made if it is missing.
        sweep: content of the parent run; None for trials without a parent.
        run_ids: file to which new run ids are appended (see `read_run_ids`), or None.
        trials: the trials known from the start; a new parent run starts with the first of them.
    """

    def __init__(
        self,
        uri: SecretUrl | str,
        experiment: str,
        sweep: SweepText | None,
        run_ids: Path | None,
        trials: Iterable[TrackedTrial] = (),
    ) -> None:
        self._uri, self._experiment, self._run_ids_file = SecretUrl.of(uri), experiment, run_ids
        self._sweep = sweep
        self._changed = threading.Condition()
        self._trials: dict[str, TrackedTrial] = {trial.key: trial for trial in trials}
        self._dirty: dict[str, TrackedTrial] = dict(self._trials)
        self._close_as: tuple[str, SweepResult] | None = None
        # Only the thread uses the fields below.
        self._view: View | None = None
        self._parent_id: str | None = None
        self._written_ids: dict[str, str] | None = None
        self._sent = 0
        """Number of trials and models that arrived: while it grows, MLflow answers."""
        self._register: str | None = None
        self._students: Sequence[TrackedStudent] = ()
        """Students that are still to be logged."""
        self._logging = False
        """Whether a student is being logged now, which may take long."""
        self._warned = False
        self._finished = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="kdtune-mlflow", daemon=True)
        self._thread.start()

    def update(self, trial: TrackedTrial) -> None:
        """Note that the trial has news. Returns at once and raises nothing."""
        with self._changed:
            self._trials[trial.key] = self._dirty[trial.key] = trial
            self._changed.notify()

    def close(
        self,
        state: str,
        result: SweepResult | None = None,
        timeout_s: float = 60.0,
        students: Students | None = None,
    ) -> list[str]:
        """Send the rest and end every run of the sweep: a trial that has not ended becomes KILLED.

        Args:
            state: how the sweep ended: complete | interrupted | failed.
            result: the sweep's result, for the parent run.
            timeout_s: seconds to wait while nothing arrives; for an interrupted sweep, seconds to wait in all.
            students: students to log as models after everything else, unless MLflow has them.

        Returns:
            What could not be sent, in plain words; empty if MLflow has everything.
        """
        with self._changed:
            self._close_as = (state, result or SweepResult())
            self._students, self._register = (students.wanted, students.register) if students else ((), None)
            self._changed.notify()
        while True:
            sent = self._sent
            self._thread.join(timeout_s)
            arrives = self._logging or self._sent != sent
            if not self._thread.is_alive() or not arrives or state == "interrupted":
                break
        if self._finished and not self._students:
            return []
        cause = f"it did not answer within {timeout_s:g} s" if self._error is None else reason(self._error, self._uri)
        with self._changed:
            missing = f"{len(self._dirty)} trials" if self._dirty else "the sweep's end"
        if self._finished:
            missing = f"the models of {len(self._students)} trials"
        return [
            f"MLflow ({self._uri}) did not receive {missing}: {cause}. "
            "The store has everything; run the same command again to send it."
        ]

    def _work(self) -> None:
        arrived, pause_s = self._round(), BATCH_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._close_as is not None, timeout=pause_s)
                if arrived:
                    self._changed.wait_for(lambda: self._close_as is not None or self._dirty)
                ending = self._close_as
            if ending is not None:
                break
            arrived = self._round()
            pause_s = BATCH_S if arrived else min(2 * pause_s, MAX_RETRY_S)
        # Two attempts each: the first one may only find that the database has vanished.
        if self._students and any(self._round() for _ in range(2)):
            any(self._log_students() for _ in range(2))
        self._finished = any(self._round() and self._attempt(lambda view: view.finish(*ending)) for _ in range(2))

    def _log_students(self) -> bool:
        """Log the remaining students; return whether all arrived. A failure does not stop the others."""
        left, connected = [], True
        for student in self._students:
            self._logging = True
            connected = connected and self._connect()
            if connected and self._attempt(methodcaller("log_student", student, self._register)):
                self._sent += 1
            else:
                left.append(student)
            self._logging = False
        self._students = left
        return not left

    def _round(self) -> bool:
        """Send every trial that has news; return whether all arrived. A failure does not stop the others."""
        connected = arrived = self._connect()
        with self._changed:
            batch, self._dirty = self._dirty, {}
        for key, trial in batch.items():
            # Reconnect after a failure; if even that fails, MLflow is down.
            connected = connected and self._connect()
            if connected and self._attempt(partial(_send, trial=trial)):
                self._sent += 1
            else:
                arrived = False
                with self._changed:
                    self._dirty.setdefault(key, trial)
        arrived = arrived and self._attempt(self._write_run_ids)
        self._tell(arrived)
        return arrived

    def _connect(self) -> bool:
        if self._view is not None:
            return True
        try:
            prepare_environment()
            with kept_process("_MLFLOW_TELEMETRY_SESSION_ID"):
                from kdtune.tracking.view import View

            with self._changed:
                known = dict(self._trials)
            self._view = View(self._uri, self._experiment, self._sweep, known.values())
        except Exception as error:
            self._error = error
            return False
        if self._parent_id != self._view.parent_id:
            # A new database, which has nothing of what was sent.
            self._parent_id = self._view.parent_id
            with self._changed:
                self._dirty = {**self._trials}
        return True

    def _attempt(self, action: Callable[[View], None]) -> bool:
        assert self._view is not None, "call _connect first"
        try:
            action(self._view)
            return True
        except Exception as error:
            self._error, self._view = error, None
            return False

    def _tell(self, arrived: bool) -> None:
        """Log a line when MLflow stops accepting results, and one when it is back."""
        if not arrived and not self._warned:
            why = reason(self._error, self._uri) if self._error else "unknown"
            log.warning(f"MLflow ({self._uri}) takes no results: {why}. Trials continue.")
        elif arrived and self._warned:
            log.warning(f"MLflow ({self._uri}) is back and up to date.")
        self._warned = not arrived

    def _write_run_ids(self, view: View) -> None:
        if self._run_ids_file is None:
            return
        ids, written = view.run_ids, self._written_ids
        if written is None:
            written = read_run_ids(self._run_ids_file, self._uri)
        if ids.get("parent") != written.get("parent"):
            written = {}  # they belong to another database
        fresh = {key: run_id for key, run_id in ids.items() if written.get(key) != run_id}
        if fresh:
            append_jsonl(self._run_ids_file, {"uri": str(self._uri), "runs": fresh})
        self._written_ids = ids


class Untracked:
    """In a publisher's place: MLflow is told nothing."""

    def update(self, trial: TrackedTrial) -> None:
        pass

    def close(self, state: str, *_: object, **__: object) -> list[str]:
        return []


def publish_trial(uri: SecretUrl | str, experiment: str, trial: TrackedTrial, timeout_s: float = 60.0) -> list[str]:
    """Send one trial that belongs to no sweep, and wait for it; return what could not be sent, as `close` does."""
    publisher = Publisher(uri, experiment, None, None)
    publisher.update(trial)
    return publisher.close("complete", timeout_s=timeout_s)


def read_run_ids(path: Path, uri: SecretUrl | str) -> dict[str, str]:
    """Return trial key → MLflow run id, with the sweep's run as "parent"; empty if nothing was sent to `uri` yet."""
    ids: dict[str, str] = {}
    for row in read_jsonl(path, ("uri", "runs"), passing_over=True):
        if row["uri"] == str(SecretUrl.of(uri)):
            # A line with a parent is a database's first.
            ids = ({} if "parent" in row["runs"] else ids) | row["runs"]
    return ids


def _send(view: View, trial: TrackedTrial) -> None:
    trial.files.fetch()
    view.send(trial)
