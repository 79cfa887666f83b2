"""Process-wide settings, changed for a while and put back: a library call leaves a process as it found it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

#: Signals whose handlers Ray replaces where it is used in the main thread.
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
_one_at_a_time = threading.RLock()


@contextmanager
def environment(settings: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables (None: remove one) within the context."""
    before = {name: os.environ.get(name) for name in settings}
    _apply(settings)
    try:
        yield
    finally:
        _apply(before)


@contextmanager
def kept_environment(*names: str) -> Iterator[None]:
    """Put these variables back at the end of the context, whatever sets them within it."""
    with environment({name: os.environ.get(name) for name in names}):
        yield


def _apply(settings: Mapping[str, str | None]) -> None:
    for name, value in settings.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def log_level(name: str, level: int) -> Iterator[None]:
    """Log at `level` within the context."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def kept_warnings() -> Iterator[None]:
    """Put the warning filters back at the end of the context. One context at a time, for the filters are a process's:
    it must not last long."""
    with _one_at_a_time, warnings.catch_warnings():
        yield


@contextmanager
def kept_process(*variables: str) -> Iterator[None]:
    """Put back what a library's import or start changes: hooks, signal handlers, warning filters, the root logger and
    `variables`.

    Ray, MLflow and torch set these for themselves; a program that calls kdtune decides them itself.
    """
    with kept_warnings(), kept_environment(*variables):
        main = threading.current_thread() is threading.main_thread()
        handlers = {number: signal.getsignal(number) for number in _SIGNALS} if main else {}
        hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
        root, level, kept = logging.root, logging.root.level, logging.root.handlers[:]
        try:
            yield
        finally:
            sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
            root.setLevel(level)
            for added in [handler for handler in root.handlers if handler not in kept]:
                root.removeHandler(added)
            for number, handler in handlers.items():
                if signal.getsignal(number) != handler:
                    signal.signal(number, handler)
