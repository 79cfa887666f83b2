"""Write the report of a sweep: gather its figures, train what `regret` asks for, and hand them to the page."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from kdtune.errors import Problem, StoreError
from kdtune.store import StoreFiles
from kdtune.store.files import append_jsonl
from kdtune.store.places import check_writable

if TYPE_CHECKING:
    from kdtune.history.sweep import SweepHistory

log = logging.getLogger(__name__)


def make_report(
    store: StoreFiles, name: str, out: Path | None = None, regret: int = 0, device: str = "auto"
) -> list[Path]:
    """Write the report of a sweep to `out`, or into the store; return its files, the page first.

    First train `regret` pruned candidates to their end, on `device`. Raises UserError for what cannot be done.
    """
    from kdtune.history.reading import read_history
    from kdtune.report.write import write_report

    history = read_history(store, name)
    folder, option = (store.report(name), "--store") if out is None else (out, "--out")
    check_writable(folder, option)
    if regret:
        _finish(store, history, regret, device)
    from kdtune.sweep.importance import importances

    shares = importances(store.sweep(name), history.record)
    return write_report(store, history, folder, shares)


def _finish(store: StoreFiles, history: SweepHistory, count: int, device_name: str) -> None:
    """Train pruned candidates to their end, in the store, where the next report finds them."""
    from kdtune.report.stops import chosen_stops

    found = list(chosen_stops(history, count))
    from kdtune.train.profile import settings_kept
    from kdtune.train.session import Session, choose_device

    session, device = Session(store), choose_device(device_name)
    files = store.sweep(history.name)
    known = files.regretted()
    for group, trials in found:
        for key, config in trials:
            session.prepare(config)
            if session.key(config) != key:
                what = f"{group} would be another trial now: its videos or this version have changed since"
                raise StoreError([Problem("--regret", what)])
            if session.files(config).fetch().result() is None:
                log.info(f"{group}: trial {key} resumes, to epoch {config.epochs}")
                with settings_kept():
                    for _ in session.trial(config, device):
                        pass
        if group not in known:
            append_jsonl(files.regret, {"group": group})  # with `prune.promote` the search learns from it
    files.publish()
