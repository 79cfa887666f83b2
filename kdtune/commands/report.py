"""`report`: write a sweep's page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtune.commands.places import reading, writing
from kdtune.commands.say import say
from kdtune.errors import EXIT_OK, Problem, StoreError
from kdtune.store.places import check_writable

if TYPE_CHECKING:
    from kdtune.store import Store
    from kdtune.urls import SecretUrl


def report(options: argparse.Namespace) -> int:
    store = reading(options) if options.out is not None and not options.regret else writing(options)
    for path in make_report(store, options.sweep, options.out, options.regret, options.device):
        print(path)
    return EXIT_OK


def make_report(store: Store, name: str, out: Path | None = None, regret: int = 0, device: str = "auto") -> list[Path]:
    """Write the report of a sweep to `out`, or into the store. Return its files, the page first.

    First train `regret` pruned candidates to the end, on `device`. Raises UserError for what cannot be done.
    """
    from kdtune.report.results import record_of
    from kdtune.report.write import write_report

    record = record_of(store, name)
    folder, option = (store.report(name), "--store") if out is None else (out, "--out")
    check_writable(folder, option)
    if regret:
        _finish(store, record, regret, device)
    from kdtune.sweep.importance import importances

    shares = importances(store.sweep(name), record)
    return write_report(store, record, folder, shares)


def log_report(store: Store, name: str, uri: SecretUrl) -> tuple[Path, list[str]]:
    """Write the report of a sweep, and log its page and plots as artifacts of the sweep's run in MLflow at `uri`.

    Returns:
        The page, and what could not be sent, in plain words; empty if everything was sent.
    """
    from kdtune.tracking.artifacts import publish_files

    files = make_report(store, name)
    shown = [path for path in files if path.suffix in (".html", ".png")]
    return files[0], publish_files(uri, store.sweep_record(name)["experiment"], name, "report", shown)


def _finish(store: Store, record: dict[str, Any], count: int, device_name: str) -> None:
    """Train `count` pruned candidates to the end, into the store, where the report finds them."""
    from kdtune.report.stops import chosen

    found = list(chosen(store, record, count))
    from kdtune.train.session import Session, choose_device

    session, device = Session(store), choose_device(device_name)
    for group, trials in found:
        for key, config in trials:
            session.prepare(config)
            if session.key(config) != key:
                what = f"{group} would now be another trial: its videos or kdtune have changed since it was trained"
                raise StoreError([Problem("--regret", what)])
            if session.files(config).fetch().result() is None:
                say(f"{group}: trial {key} continues to epoch {config.epochs}")
                for _ in session.trial(config, device):
                    pass
