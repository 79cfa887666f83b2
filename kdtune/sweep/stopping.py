"""End a running sweep early: take requests, detect the reasons and tell the trials.

A file in the store asks trials to stop. They check for it after each step, on any machine, write their checkpoints and
end. The driver writes the file, or `kdtune stop` does and the driver detects it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress

from kdtune.config.search import StopConfig
from kdtune.errors import StoreError
from kdtune.store import SweepFiles

#: Seconds that a trial has to write its checkpoint; after that it is ended without one.
GRACE_S = 15.0
#: Minimum seconds between two checks for the file: in a folder, and behind a URL.
LOOK_S, FAR_LOOK_S = 0.2, 2.0


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


class StopFlag:
    """Tells trials whether they must stop. A call is cheap enough for every step: `check` runs every `every_s`."""

    def __init__(self, check: Callable[[], bool], every_s: float = LOOK_S) -> None:
        self._check, self._every_s = check, every_s
        self._looked, self._stops = 0.0, False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._stops and now - self._looked >= self._every_s:
            self._looked, self._stops = now, self._check()
        return self._stops


def stop_file(files: SweepFiles) -> StopFlag:
    """Return a worker's flag: whether the file that asks the sweep's trials to stop is there."""
    return StopFlag(files.stops, LOOK_S if files.mirror is None else FAR_LOOK_S)


class StopNow(BaseException):
    """Trials were asked to stop but did not. Not an Exception, because Ray Tune would treat one as its own error."""


class Stopping:
    """The driver's side: detects the first reason to stop and asks the trials to stop."""

    def __init__(self, files: SweepFiles, budget: StopConfig, cancel: Cancel) -> None:
        self.files, self.budget, self.cancel = files, budget, cancel
        self.begun: set[str] = set()
        """Names of the groups that this run began to train."""
        self.waited: set[str] = set()
        """The groups in `begun` that another sweep trained instead. They do not count against the budget."""
        self.reached: str | None = None
        """Which candidate reached the target, in words."""
        self.reason: str | None = None
        """Why trials were asked to stop, or None."""
        self.interrupted = False
        """Whether a user stopped the sweep (not a budget)."""
        self.impatient = False
        """Whether the user interrupted again: trials then end without writing a checkpoint."""
        self._started = time.monotonic()
        self._asked_at = 0.0

    def look(self) -> None:
        """Check for a reason to stop. Call this often. Raises StopNow if trials were asked to stop but did not."""
        if self.reason is None:
            self.reason = self._found()
            if self.reason is not None:
                self._asked_at = time.monotonic()
                self.files.stop.touch()
                with suppress(StoreError):  # it is published later
                    self.files.publish()
        elif self.impatient or time.monotonic() - self._asked_at > GRACE_S:
            raise StopNow

    def stops(self) -> bool:
        """Return whether there is a reason to stop, after a look if there was none."""
        if self.reason is None:
            self.look()
        return self.reason is not None

    def _found(self) -> str | None:
        if self.cancel.asked:
            self.interrupted = True
            return "interrupted"
        if self.files.stop.exists():
            self.interrupted = True
            return "asked to stop"
        if self.budget.hours is not None and time.monotonic() - self._started >= 3600 * self.budget.hours:
            return f"stop.hours: {self.budget.hours:g} h are over"
        return self.reached

    @property
    def trials_used_up(self) -> bool:
        """Whether no new group may begin. Groups that have begun continue, and are retried if they fail."""
        return self.budget.trials is not None and self._trainings >= self.budget.trials

    @property
    def _trainings(self) -> int:
        return len(self.begun - self.waited)

    @property
    def budget_note(self) -> str | None:
        """Which budget ended the sweep, or None."""
        if self.reason is not None:
            return None if self.interrupted else self.reason
        return f"stop.trials: {self._trainings} trainings have started" if self.trials_used_up else None
