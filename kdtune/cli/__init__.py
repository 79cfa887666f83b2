"""The command line: parse the arguments, run the command, return its exit code."""

from __future__ import annotations

import sys

from kdtune.cli.completion import complete_if_asked
from kdtune.cli.options import parser
from kdtune.commands import process
from kdtune.commands.utf8 import start_in_utf8_mode
from kdtune.config.reading.shipped import located
from kdtune.store.places import DEFAULT_STORE


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code (see errors.py)."""
    if arguments is None:
        complete_if_asked()
        start_in_utf8_mode()
    given = sys.argv[1:] if arguments is None else arguments
    process.prepare(given)
    store = DEFAULT_STORE
    try:
        try:
            options = parser().parse_args(given)
        except SystemExit:  # --help, --version, or refused arguments
            process.flush()
            raise
        store = options.store
        process.check_arguments(given)
        if "file" in options:
            options.file = located(options.file)
        code = options.run(options)
        process.flush()
        return code
    except (Exception, KeyboardInterrupt) as error:
        return process.end(error, store)
