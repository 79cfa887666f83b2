"""Run one sweep: prepare the data, search, train, publish."""

from __future__ import annotations

import time
from pathlib import Path

from kdtune.config.checking.steering import NONE_LEFT, steered_by_test
from kdtune.config.sweep import SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import EXIT_USER_ERROR, UserError
from kdtune.execute.backend import Backend
from kdtune.execute.books import Ending, SweepBooks, Watcher
from kdtune.execute.group_queue import GroupQueue
from kdtune.history.reading import read_history
from kdtune.history.record import SweepRecord
from kdtune.scoped import kept_environment
from kdtune.store import StoreFiles
from kdtune.store.files import write_json
from kdtune.sweep.changes import explained
from kdtune.sweep.driver_lock import DriverLock
from kdtune.sweep.earlier import known_candidates
from kdtune.sweep.feasible import recorded_costs
from kdtune.sweep.few_videos import data_warnings
from kdtune.sweep.ledger import Ledger
from kdtune.sweep.prepare import prepare_sweep, refuse
from kdtune.sweep.scheduler import SweepScheduler
from kdtune.sweep.stopping import Cancel, StopNow, Stopping
from kdtune.sweep.study import Journal
from kdtune.tracking.commit import commit_tags
from kdtune.tracking.ending import SweepEnding
from kdtune.tracking.location import MLFLOW_VARIABLES
from kdtune.tracking.publish import Publisher, Untracked
from kdtune.tracking.sweep_text import sweep_text
from kdtune.urls import SecretUrl


def drive(
    sweep: SweepConfig,
    text: str,
    store: StoreFiles,
    backend: Backend,
    uri: SecretUrl | str | None,
    watcher: Watcher,
    cancel: Cancel | None = None,
) -> Ending:
    """Run or resume `sweep`, whose file reads `text`. Raises UserError before anything is trained.

    A request through `cancel`, or a KeyboardInterrupt, ends the sweep with EXIT_INTERRUPTED after the running trials
    have written their checkpoints and MLflow has been updated; the same call resumes it. A budget of `stop` ends it in
    the same way, with EXIT_OK. The process is left as it was found: to end the sweep on signals, pass a `cancel` that
    handles them. Any thread may call this.

    Without a `uri` nothing goes to MLflow. An exception of the watcher ends the sweep as a request does, and is raised
    again here.
    """
    started = time.monotonic()
    cancel = Cancel() if cancel is None else cancel
    watcher.say(f"{sweep.name}: {sweep.question}" if sweep.question else sweep.name)
    refuse(sweep, backend.problems(sweep.resources))
    if reasons := steered_by_test(sweep):
        watcher.say(f"note: {'; '.join(reasons)}: {NONE_LEFT}")
    store.claim()
    with DriverLock(store, sweep.name, backend.address) as driver_lock, kept_environment(*MLFLOW_VARIABLES):
        prepared = prepare_sweep(sweep, store)
        for warning in data_warnings(sweep, prepared):
            watcher.say(f"warning: {warning}")
        files = store.sweep(sweep.name)
        for line in explained(files, sweep, text):
            watcher.say(line)

        def key_of(config: TrialConfig) -> str:
            prepared.prepare(config)
            return prepared.key(config)

        ledger = Ledger(files.ledger(sweep.ledger))
        for line in known_candidates(sweep, ledger, store, key_of):
            watcher.say(line)
        costs = recorded_costs(sweep, prepared, ledger)
        commit = commit_tags(Path.cwd())
        record = SweepRecord.of(sweep, ledger.path.name, text, commit)
        write_json(files.sweep, record.row())
        watcher.begin(record)
        told = Untracked() if uri is None else Publisher(uri, sweep.experiment, sweep_text(record), files.mlflow)
        stopping = Stopping(files, sweep.stop, cancel)
        books = SweepBooks(sweep, store, told, watcher, stopping, commit)

        def stuck(error: UserError) -> None:
            """Close the books in place of the blocked thread, and end the process if `cancel` allows it."""
            told.close("interrupted")
            driver_lock.close()
            watcher.say(str(error).strip())
            cancel.abort(EXIT_USER_ERROR)

        state = "interrupted"
        try:
            journal = Journal(files.study(ledger.path), sweep)
            regretted = files.regretted()
            scheduler = SweepScheduler(sweep, key_of, ledger, journal, books.on_end, books.apply, costs, regretted)
            books.scheduler = scheduler
            first = scheduler.next_to_train(store)
            if first is not None:
                scheduler.catch_up()  # here an interrupt ends the sweep at once
                queue = GroupQueue(scheduler, first, prepared, stopping, books.on_row)
                backend.run(queue, cancel, watcher.say, stuck)
            state = "interrupted" if stopping.interrupted else "complete"
        except KeyboardInterrupt:
            cancel.interrupted = True
        except StopNow:
            pass
        finally:
            end = SweepEnding(store, read_history(store, sweep.name))
            students = end.students() if state == "complete" else None
            unsent = told.close(state, end.result(), students=students)
    if isinstance(books.raised, KeyboardInterrupt):
        cancel.interrupted = True
    elif books.raised is not None:
        raise books.raised
    if state == "interrupted":
        watcher.say("interrupted: run the same command again to resume from the last checkpoints")
    return books.ending(state, time.monotonic() - started, unsent)
