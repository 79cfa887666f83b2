"""`store check`: find damaged files in the store."""

from __future__ import annotations

import argparse

from kdtune.commands.places import reading, writing
from kdtune.commands.say import say, show
from kdtune.errors import EXIT_FAILED_TRIALS, EXIT_OK


def check(options: argparse.Namespace) -> int:
    from kdtune.train.checking.store_check import report

    store = writing(options) if options.repair else reading(options)
    found, left = report(store, options.repair, show)
    show(f"{found} damaged" + (f", {found - left} set aside" if options.repair else ""))
    if found and not options.repair:
        say("`store check --repair` sets damaged files aside that can be made again")
    return EXIT_FAILED_TRIALS if left else EXIT_OK
