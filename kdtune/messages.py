"""What the library says goes to the logger `kdtune`; a process that kdtune owns shows it on standard error."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress


class _StandardError(logging.Handler):
    """Writes to whatever `sys.stderr` is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):  # nobody reads it
            print(self.format(record), file=sys.stderr, flush=True)


def show_messages() -> None:
    """Show progress and warnings as lines `kdtune: …` on standard error, once each.

    For commands and workers alone: a program that imports kdtune decides itself what becomes of the messages.
    """
    logger = logging.getLogger("kdtune")
    if not any(isinstance(handler, _StandardError) for handler in logger.handlers):
        handler = _StandardError()
        handler.setFormatter(logging.Formatter("kdtune: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
