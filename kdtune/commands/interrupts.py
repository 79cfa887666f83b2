"""Make SIGINT and SIGTERM end a sweep, even if the library that they interrupt swallows the exception."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from kdtune.sweep.stopping import Cancel

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts(Cancel):
    """The `Cancel` of a command: within the context either signal sets `asked` and raises KeyboardInterrupt.

    Within `patient` the first signal only sets `asked`, so that trials write their checkpoints; the second one raises.
    A signal may arrive in a weak reference's callback or a `__del__`, where Python swallows the exception and prints
    its traceback: that traceback is suppressed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._patient = self._deferred = self._came = False

    def __enter__(self) -> Interrupts:
        self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        self._swallowed, sys.unraisablehook = sys.unraisablehook, self._quiet
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._swallowed

    @contextmanager
    def patient(self) -> Iterator[None]:
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the context, only record signals; raise KeyboardInterrupt at its end if one came."""
        self._deferred, self._came = True, False
        try:
            yield
        finally:
            self._deferred = False
        if self._came:
            raise KeyboardInterrupt

    def abort(self, exit_code: int) -> None:
        os._exit(exit_code)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        first, self.asked = not self.asked, True
        if self._deferred:
            self._came = True
        elif not (first and self._patient):
            raise KeyboardInterrupt

    def _quiet(self, swallowed: sys.UnraisableHookArgs) -> None:
        if not isinstance(swallowed.exc_value, KeyboardInterrupt):
            self._swallowed(swallowed)
