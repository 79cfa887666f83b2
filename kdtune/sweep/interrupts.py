"""SIGINT and SIGTERM end a sweep, even where the library that they interrupt swallows their exception."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Within the context either signal raises KeyboardInterrupt, and `check` raises it again.

    While it is `patient` the first signal is only noted, for trials to write their checkpoints; a second one raises.
    A signal may arrive in a weak reference's callback or a `__del__`, where Python itself swallows the exception and
    prints its traceback: that traceback is kept from the user.
    """

    def __init__(self) -> None:
        self.asked = False
        self._patient = self._deferred = self._came = False

    def __enter__(self) -> Interrupts:
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        self._swallowed, sys.unraisablehook = sys.unraisablehook, self._quiet
        self.listen()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._swallowed

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Whoever calls this looks at `asked` often."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the context, which must end soon, signals are only noted; they raise KeyboardInterrupt at its end."""
        self._deferred, self._came = True, False
        try:
            yield
        finally:
            self._deferred = False
        if self._came:
            raise KeyboardInterrupt

    def listen(self) -> None:
        """Be the one who hears them: to be called again after others have put their own handlers there."""
        for number in SIGNALS:
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        first, self.asked = not self.asked, True
        if self._deferred:
            self._came = True
        elif not (first and self._patient):
            raise KeyboardInterrupt

    def _quiet(self, swallowed: sys.UnraisableHookArgs) -> None:
        if not isinstance(swallowed.exc_value, KeyboardInterrupt):
            self._swallowed(swallowed)

    def check(self) -> None:
        if self.asked:
            raise KeyboardInterrupt
