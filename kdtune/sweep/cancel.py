"""A request to end a sweep early, and what a process may add to it. A library call uses `Cancel` itself."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext


class Cancel:
    """Asks a sweep to end; any thread may ask.

    `commands/interrupts.py` derives a class that hears signals and may end the process. This one does neither: in a
    main thread Ctrl-C raises KeyboardInterrupt as ever.
    """

    def __init__(self) -> None:
        self.asked = False
        """Whether somebody asked. Trials then write their checkpoints and end; the sweep's books are closed."""
        self.interrupted = False
        """Whether that was a KeyboardInterrupt, which a library call raises again when it has closed its books."""

    def ask(self) -> None:
        """Ask the sweep to end."""
        self.asked = True

    def patient(self) -> AbstractContextManager[None]:
        """Within the context the first interrupt is only noted in `asked`, which the caller looks at often."""
        return nullcontext()

    def deferred(self) -> AbstractContextManager[None]:
        """Within the context, which must end soon, interrupts wait for its end."""
        return nullcontext()

    def abort(self, exit_code: int) -> None:
        """End the process, where a library holds up the thread that should. A library call may not, and waits."""
