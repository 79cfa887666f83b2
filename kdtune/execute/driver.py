"""The `sweep` command's work: prepare, search, train, publish; what is said on the way."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kdtune.config.steering import NONE_LEFT, steered_by_test
from kdtune.config.sweep import SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import EXIT_FAILED_TRIALS, EXIT_INTERRUPTED, EXIT_OK, EXIT_USER_ERROR, UserError
from kdtune.execute.backend import Backend
from kdtune.execute.group_queue import GroupQueue
from kdtune.history.events import EpochEnd, Event, Outcome
from kdtune.history.record import SweepRecord
from kdtune.store import TARGET_COUNTS, Store
from kdtune.store.files import write_json
from kdtune.sweep.cancel import Cancel
from kdtune.sweep.changes import explained
from kdtune.sweep.driver_lock import DriverLock
from kdtune.sweep.group import TrialGroup
from kdtune.sweep.ledger import Ledger
from kdtune.sweep.prepare import prepare_sweep, refuse
from kdtune.sweep.prune import reaches
from kdtune.sweep.scheduler import SweepScheduler
from kdtune.sweep.stopping import StopNow, Stopping
from kdtune.sweep.study import Journal
from kdtune.tracking.commit import commit_tags
from kdtune.tracking.ending import SweepEnding
from kdtune.tracking.publish import Publisher
from kdtune.tracking.sweep_text import sweep_text
from kdtune.tracking.trials import keys_of, tracked_trial
from kdtune.urls import SecretUrl


class Watcher(Protocol):
    """Shows people how a sweep goes on."""

    def say(self, text: str) -> None:
        """A line."""

    def begin(self, record: dict[str, Any]) -> None:
        """The sweep's record, before its first event."""

    def ledger(self, row: dict[str, Any]) -> None:
        """A row of the ledger: what was asked, what has ended."""

    def epoch(self, group: str, key: str, row: dict[str, Any]) -> None:
        """A row of a trial."""


@dataclass(frozen=True)
class Ending:
    """How a sweep ended."""

    exit_code: int
    seconds: float
    trained: int
    """Trials that this run trained, teachers included."""
    found: int
    """Trials that were in the store."""
    waited: int
    """Trials that another sweep trained while this one ran."""
    targets: Counter[str]
    """Of this run's epochs: `targets_computed` and `targets_found`, in samples."""
    notes: list[str]
    published: bool = True
    """Whether MLflow has everything."""

    def account(self, store: str) -> list[str]:
        """What was made, what was found in `store`, and how long it took: lines for people."""
        minutes, rest = divmod(round(self.seconds), 60)
        took = f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
        waited = f", {self.waited} trained by another sweep meanwhile" if self.waited else ""
        lines = [f"{self.trained} trials trained, {self.found} found in {store}{waited}; {took}."]
        if self.targets:
            computed, found = (self.targets[name] for name in TARGET_COUNTS)
            lines.append(f"Teachers' targets, one a sample and epoch: {computed:,} computed, {found:,} found.")
        return lines


def drive(
    sweep: SweepConfig,
    text: str,
    store: Store,
    backend: Backend,
    uri: SecretUrl | str,
    watcher: Watcher,
    cancel: Cancel | None = None,
) -> Ending:
    """Run or resume `sweep`, whose file reads `text`. Raises UserError before anything is trained.

    A request of `cancel`, or a KeyboardInterrupt, ends the sweep with EXIT_INTERRUPTED, after the running trials have
    written their checkpoints and MLflow has been told; the same call resumes it. A budget of `stop` ends it likewise,
    with EXIT_OK. The process is left as it was found: who wants signals to end the sweep passes a `cancel` that hears
    them. Any thread may call this.
    """
    started = time.monotonic()
    cancel = Cancel() if cancel is None else cancel
    watcher.say(f"{sweep.name}: {sweep.question}" if sweep.question else sweep.name)
    refuse(sweep, backend.problems(sweep.resources))
    if reasons := steered_by_test(sweep):
        watcher.say(f"note: {'; '.join(reasons)}: {NONE_LEFT}")
    store.claim()
    with DriverLock(store, sweep.name, backend.address) as driver_lock:
        prepared = prepare_sweep(sweep, store)
        files = store.sweep(sweep.name)
        for line in explained(files, sweep, text):
            watcher.say(line)
        ledger = files.ledger(sweep.ledger)
        commit = commit_tags(Path.cwd())
        record = sweep_record(sweep, text, ledger, commit)
        write_json(files.sweep, record)
        watcher.begin(record)
        publisher = Publisher(uri, sweep.experiment, sweep_text(record), files.mlflow)
        stopping = Stopping(files, sweep.stop, cancel)
        books = SweepBooks(sweep, store, publisher, watcher, stopping, commit)

        def key_of(config: TrialConfig) -> str:
            prepared.prepare(config)
            return prepared.key(config)

        def stuck(error: UserError) -> None:
            """Close the books for the thread that cannot, and end the process if that is allowed."""
            publisher.close("interrupted")
            driver_lock.close()
            watcher.say(str(error).strip())
            cancel.abort(EXIT_USER_ERROR)

        state = "interrupted"
        try:
            journal = Journal(files.study(ledger), sweep)
            scheduler = SweepScheduler(sweep, key_of, Ledger(ledger), journal, books.on_end, books.on_record)
            books.scheduler = scheduler
            first = scheduler.next_to_train(store)
            if first is not None:
                scheduler.catch_up()  # here, where an interrupt ends it at once
                queue = GroupQueue(scheduler, first, prepared, stopping, books.on_row)
                backend.run(queue, cancel, watcher.say, stuck)
            state = "interrupted" if stopping.interrupted else "complete"
        except KeyboardInterrupt:
            cancel.interrupted = True
        except StopNow:
            pass
        finally:
            unsent = _close(publisher, state, store, sweep.name)
    if state == "interrupted":
        watcher.say("interrupted: the same command goes on from the last checkpoints")
    return books.ending(state, time.monotonic() - started, unsent)


def _close(publisher: Publisher, state: str, store: Store, name: str) -> list[str]:
    """Tell MLflow how the sweep ended; what could not be sent, in words."""
    ending = SweepEnding(store, name)
    return publisher.close(state, ending.summary(), students=ending.students() if state == "complete" else None)


def sweep_record(sweep: SweepConfig, text: str, ledger: Path, commit: dict[str, str]) -> dict[str, Any]:
    """What `results`, `report` and `publish` need to know of a sweep beside its ledger; `config` is the file with its
    --set."""
    return SweepRecord.of(sweep, ledger.name, text, commit).row()


class SweepBooks:
    """Forwards events to the display, MLflow and the summary."""

    def __init__(
        self,
        sweep: SweepConfig,
        store: Store,
        publisher: Publisher,
        watcher: Watcher,
        stopping: Stopping,
        commit: dict[str, str],
    ) -> None:
        self.sweep, self.store, self.publisher, self.watcher, self.stopping = sweep, store, publisher, watcher, stopping
        self.commit = commit
        self.targets: Counter[str] = Counter()
        self.found = self.trained = self.waited = 0
        self._trains: dict[str, bool] = {}
        """Keys of the trials that workers have reported on, and whether one of this run has trained it."""
        self.scheduler: SweepScheduler | None = None
        self._began = time.time()

    def on_record(self, event: Event) -> None:
        assert not isinstance(event, EpochEnd)
        self.watcher.ledger(event.row())

    def on_row(self, group: TrialGroup, key: str, row: dict[str, Any], trained: bool) -> None:
        self._publish(group, key, "running", None)
        self._trains[key] = trained or self._trains.get(key, False)
        # An earlier one is of an earlier run, handed over by a trial that goes on.
        if trained and row["at"] >= self._began:
            self.targets.update({name: row[name] for name in TARGET_COUNTS if name in row})
        self.watcher.epoch(group.name, key, row)

    def on_end(self, group: TrialGroup, outcome: Outcome, cached: bool) -> None:
        trials = keys_of(group.asked().row(), outcome.state)
        for key in trials:
            self._publish(group, key, outcome.state, outcome.objective, cached)
        if group.name in self.stopping.begun:
            # One that has failed before its first row was trained, too.
            trained = sum(self._trains.get(key, outcome.state == "failed") for key in trials)
            self.trained += trained
            self.waited += len(trials) - trained
        elif cached:
            self.found += len(trials)
        if group.kind == "candidate" and outcome.objective is not None:
            self._look_at_target(group, outcome.objective)

    def _look_at_target(self, group: TrialGroup, value: float) -> None:
        target, first = self.sweep.stop.target, self.sweep.objectives[0]
        if target is not None and reaches(value, target, first.mode):
            self.stopping.reached = f"stop.target: {group.name} has {first.metric} {value:.3f}"

    def ending(self, state: str, seconds: float, unsent: list[str]) -> Ending:
        scheduler = self.scheduler
        failed = scheduler is not None and any(out.state == "failed" for out in scheduler.outcomes.values())
        code = EXIT_INTERRUPTED if state == "interrupted" else EXIT_FAILED_TRIALS if failed else EXIT_OK
        notes = [*(scheduler.notes + scheduler.barren() if scheduler else ()), *unsent]
        if (budget := self.stopping.budget_note) is not None and not (scheduler and scheduler.done):
            notes.append(f"{budget}: the same command with a larger budget goes on")
        return Ending(code, seconds, self.trained, self.found, self.waited, self.targets, notes, published=not unsent)

    def _publish(self, group: TrialGroup, key: str, state: str, objective: float | None, cached: bool = False) -> None:
        told = tracked_trial(self.store, group.asked().row(), key, state, objective, cached=cached, commit=self.commit)
        self.publisher.update(told)
