"""`sweep`, `plan` and `results`."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path

from kdtune.calling import pasteable
from kdtune.commands.places import reading, store_words, writing
from kdtune.commands.say import say, show, show_command
from kdtune.errors import EXIT_INTERRUPTED, EXIT_OK, Problem, UserError
from kdtune.messages import line_width


def sweep(options: argparse.Namespace) -> int:
    if options.dry_run:
        return plan(options)
    from kdtune.config.load import parse_sweep
    from kdtune.config.reading.reader import read_text

    text = read_text(options.file)  # read once, so that the text kept with the sweep is the text that was checked
    sweep = parse_sweep(text, options.file, options.set)
    from kdtune.commands.interrupts import Interrupts
    from kdtune.commands.report import log_report
    from kdtune.execute.backend import backend_of
    from kdtune.execute.driver import drive
    from kdtune.history.reading import read_history
    from kdtune.history.trials import sweep_trials
    from kdtune.plan.plan import outlook
    from kdtune.report.results import answer_of, mixed_profiles, summary
    from kdtune.tracking.location import is_server, tracking_uri
    from kdtune.watch.live import watcher

    backend = backend_of(options.backend, options.address)
    store, uri = writing(options), tracking_uri()
    files = store.sweep(sweep.name)
    with suppress(UserError):  # the sweep refuses it, with all other problems
        for line in outlook(sweep, store):
            say(line)
    with watcher(sys.stderr) as shown, files.synced(), Interrupts() as interrupts:
        end = drive(sweep, text, store, backend, uri, shown, interrupts)
    found = sweep_trials(store, read_history(store, sweep.name))
    print(f"\n{summary(found, line_width(sys.stdout))}\n")
    for line in end.account(options.store):
        show(line)
    worth = end.trained > 0 and end.published and end.exit_code != EXIT_INTERRUPTED
    page, unsent = log_report(store, sweep.name, uri) if worth else (None, [])
    for note in filter(None, [*end.notes, *unsent, mixed_profiles(found.every)]):
        show(f"note: {note}")
    show_command("Look at it:", str(uri) if is_server(uri) else pasteable("ui"))
    if page is not None:
        here = Path.cwd()
        show(f"Report:      {page.relative_to(here) if page.is_relative_to(here) else page}")
    show_command("All figures:", pasteable("results", sweep.name, "--format", "csv", *store_words(options)))
    if sweep.search.candidates is not None:
        show_command("Continue:", continue_command(options, 2 * sweep.search.candidates))
    show("\n".join(["", *answer_of(found).sentences]))
    return end.exit_code


def continue_command(options: argparse.Namespace, candidates: int) -> str:
    """Return the shell command that resumes the sweep of a command's options with this number of candidates."""
    kept = [each for each in options.set if each.partition("=")[0].strip() != "search.candidates"]
    words = [word for each in [*kept, f"search.candidates={candidates}"] for word in ("--set", each)]
    words += ["--address", options.address] if options.address else []
    words += ["--backend", options.backend] if options.backend != "ray" else []
    return pasteable("sweep", str(options.file), *words, *store_words(options))


def plan(options: argparse.Namespace) -> int:
    from kdtune.config.load import load_sweep
    from kdtune.plan.plan import plan

    sweep = load_sweep(options.file, options.set)
    store = writing(options) if options.measure else reading(options)
    for line in plan(sweep, store, say if options.measure else None):
        show(line)
    return EXIT_OK


def results(options: argparse.Namespace) -> int:
    from kdtune.history.reading import read_history
    from kdtune.history.trials import sweep_trials
    from kdtune.report.results import READABLE, mixed_profiles, render
    from kdtune.tracking.location import tracking_uri
    from kdtune.tracking.publish import read_run_ids

    store = reading(options)
    found = sweep_trials(store, read_history(store, options.sweep))
    if note := mixed_profiles(found.every):
        say(f"note: {note}")
    if options.accuracies:
        from kdtune.report.accuracies import accuracies

        if options.format not in READABLE:
            what = f"makes tables, got {options.format}: that format always holds every figure"
            raise UserError([Problem("--accuracies", what, ", ".join(READABLE))])
        print(accuracies(found, options.format, line_width(sys.stdout)))
    else:
        run_ids = read_run_ids(store.sweep(options.sweep).mlflow, tracking_uri())
        print(render(found, options.format, run_ids, line_width(sys.stdout)))
    return EXIT_OK
