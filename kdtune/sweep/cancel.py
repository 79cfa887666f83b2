"""A request to end a sweep early. Library calls use `Cancel` itself; the command line derives a class from it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext


class Cancel:
    """A request to end a sweep, which any thread may make.

    The class that `commands/interrupts.py` derives handles signals and may end the process. This class does neither:
    in a main thread Ctrl-C raises KeyboardInterrupt as usual.
    """

    def __init__(self) -> None:
        self.asked = False
        """Whether the sweep was asked to end. Trials then write their checkpoints, and the sweep closes its books."""
        self.interrupted = False
        """Whether a KeyboardInterrupt asked. A library call raises it again after closing the books."""

    def ask(self) -> None:
        """Ask the sweep to end."""
        self.asked = True

    def patient(self) -> AbstractContextManager[None]:
        """Within the context, only set `asked` on the first interrupt. The caller checks `asked` often."""
        return nullcontext()

    def deferred(self) -> AbstractContextManager[None]:
        """Delay interrupts until the context ends, which must be soon."""
        return nullcontext()

    def abort(self, exit_code: int) -> None:
        """End the process when a library blocks the thread that should return. Does nothing in a library call."""
