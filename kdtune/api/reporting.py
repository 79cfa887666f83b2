"""Write the report of a sweep: gather its figures, train what `regret` asks for, and hand them to the page."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from kdtune.errors import Problem, StoreError
from kdtune.store import Store
from kdtune.store.places import check_writable

log = logging.getLogger(__name__)


def make_report(store: Store, name: str, out: Path | None = None, regret: int = 0, device: str = "auto") -> list[Path]:
    """Write the report of a sweep to `out`, or into the store; return its files, the page first.

    First train `regret` pruned candidates to their end, on `device`. Raises UserError for what cannot be done.
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


def _finish(store: Store, record: dict[str, Any], count: int, device_name: str) -> None:
    """Train pruned candidates to their end, in the store, where the next report finds them."""
    from kdtune.report.stops import chosen

    found = list(chosen(store, record, count))
    from kdtune.train.profile import settings_kept
    from kdtune.train.session import Session, choose_device

    session, device = Session(store), choose_device(device_name)
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
