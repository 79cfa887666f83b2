"""The library logs messages to the logger `kdtune`; processes that kdtune owns show them on standard error."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress


class _StandardError(logging.Handler):
    """Writes to the current `sys.stderr`, which may be replaced at any time."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):  # standard error is closed
            print(self.format(record), file=sys.stderr, flush=True)


def show_messages() -> None:
    """Show progress and warnings as lines `kdtune: …` on standard error, once each.

    Only commands and workers call this. A program that imports kdtune configures logging itself.
    """
    logger = logging.getLogger("kdtune")
    if not any(isinstance(handler, _StandardError) for handler in logger.handlers):
        handler = _StandardError()
        handler.setFormatter(logging.Formatter("kdtune: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
