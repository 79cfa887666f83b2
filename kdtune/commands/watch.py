"""`status`: show the progress of sweeps."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from kdtune.commands.places import reading
from kdtune.errors import EXIT_OK, Problem, UserError

if TYPE_CHECKING:
    from kdtune.store import StoreFiles


def status(options: argparse.Namespace) -> int:
    from kdtune.watch import status as report

    store = reading(options)
    if options.follow:
        if options.format == "json":
            raise UserError([Problem("--follow", "shows one sweep as a table, got json", "table")])
        report.follow(store, options.sweep or _only_sweep(store), sys.stdout)
        return EXIT_OK
    if options.format == "json":
        found = report.overview(store) if options.sweep is None else report.status(store, options.sweep)
        print(json.dumps(found, indent=1, ensure_ascii=False))
    elif options.sweep is None:
        report.show_overview(store, sys.stdout)
    else:
        report.show_status(store, options.sweep, sys.stdout)
    return EXIT_OK


def _only_sweep(store: StoreFiles) -> str:
    """Return the name of the only sweep in the store, or of the only one that runs. Raises UserError otherwise."""
    from kdtune.watch.status import running

    names = store.sweeps()
    found = names if len(names) == 1 else running(store)
    if len(found) != 1:
        what = f"shows one sweep: name it, since {len(names)} are here and {len(found)} of them run"
        raise UserError([Problem("--follow", what, ", ".join(found or names) or "none yet")])
    return found[0]
