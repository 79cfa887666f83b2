"""`status`: show the progress of sweeps."""

from __future__ import annotations

import argparse
import json
import sys

from kdtune.commands.places import reading
from kdtune.errors import EXIT_OK, Problem, UserError


def status(options: argparse.Namespace) -> int:
    from kdtune.watch import status as report

    store = reading(options)
    if options.follow and (options.sweep is None or options.format == "json"):
        what = "shows one sweep as a table" + (", but none is named" if options.sweep is None else ", got json")
        raise UserError([Problem("--follow", what, ", ".join(store.sweeps()) if options.sweep is None else "table")])
    if options.follow:
        report.follow(store, options.sweep, sys.stdout)
        return EXIT_OK
    if options.format == "json":
        found = report.overview(store) if options.sweep is None else report.status(store, options.sweep)
        print(json.dumps(found, indent=1, ensure_ascii=False))
    elif options.sweep is None:
        report.show_overview(store, sys.stdout)
    else:
        report.show_status(store, options.sweep, sys.stdout)
    return EXIT_OK
