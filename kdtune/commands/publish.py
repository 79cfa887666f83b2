"""`publish`: bring MLflow up to date from the store."""

from __future__ import annotations

import argparse

from kdtune.commands.places import writing
from kdtune.commands.say import say, show
from kdtune.errors import EXIT_OK, Problem, UserError


def publish(options: argparse.Namespace) -> int:
    from kdtune.commands.report import log_report
    from kdtune.history.reading import read_history
    from kdtune.history.record import read_record
    from kdtune.sweep.driver_lock import nobody_runs
    from kdtune.tracking.ending import SweepEnding
    from kdtune.tracking.location import tracking_uri
    from kdtune.tracking.publish import Publisher
    from kdtune.tracking.sweep_text import sweep_text

    store, uri, name = writing(options), tracking_uri(), options.sweep
    files = store.sweep(name).fetch()
    read_record(store, name)  # refuse an unknown name before anything is made for it
    with nobody_runs(store, name), files.synced():
        history = read_history(store, name)
        groups = [group.asked for group in history.groups.values()]
        store.fetch_trials(key for asked in groups for key in asked.every_key)
        ending = SweepEnding(store, history)
        trials = ending.trials()
        say(f"{name}: {len(trials)} trials to MLflow at {uri}")
        publisher = Publisher(uri, history.record.experiment, sweep_text(history.record), files.mlflow, trials)
        state = "complete" if history.complete else "interrupted"
        students = ending.students() if history.complete else None
        unsent = publisher.close(state, ending.result(), students=students)
    if unsent:
        raise UserError([Problem("MLFLOW_TRACKING_URI", text) for text in unsent])
    _, unsent = log_report(store, name, uri)
    if unsent:
        raise UserError([Problem("MLFLOW_TRACKING_URI", text) for text in unsent])
    models = f", {len(students.wanted)} students as models" if students is not None else ""
    show(f"MLflow has {len(trials)} trials of {name}{models}, and its report.")
    return EXIT_OK
