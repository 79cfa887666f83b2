"""`report`: write a sweep's page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from kdtune.commands.places import reading, writing
from kdtune.errors import EXIT_OK

if TYPE_CHECKING:
    from kdtune.store import StoreFiles
    from kdtune.urls import SecretUrl


def report(options: argparse.Namespace) -> int:
    from kdtune.api.reporting import make_report

    store = reading(options) if options.out is not None and not options.regret else writing(options)
    for path in make_report(store, options.sweep, options.out, options.regret, options.device):
        print(path)
    return EXIT_OK


def log_report(store: StoreFiles, name: str, uri: SecretUrl) -> tuple[Path, list[str]]:
    """Write the report of a sweep, and log its page and plots as artifacts of the sweep's run in MLflow at `uri`.

    Returns:
        The page, and what could not be sent, in plain words; empty if everything was sent.
    """
    from kdtune.api.reporting import make_report
    from kdtune.history.record import read_record
    from kdtune.tracking.artifacts import publish_files

    files = make_report(store, name)
    shown = [path for path in files if path.suffix in (".html", ".png")]
    return files[0], publish_files(uri, read_record(store, name).experiment, name, "report", shown)
