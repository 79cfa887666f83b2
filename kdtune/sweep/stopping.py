"""End a running sweep early: detect the reasons and tell the trials.

A file in the store asks trials to stop. They check for it after each step, on any machine, write their checkpoints and
end. The driver writes the file, or `kdtune stop` does and the driver detects it.
"""

from __future__ import annotations

import time
from contextlib import suppress

from kdtune.config.search import StopConfig
from kdtune.errors import StoreError
from kdtune.store import SweepFiles
from kdtune.sweep.cancel import Cancel

#: Seconds that a trial has to write its checkpoint; after that it is ended without one.
GRACE_S = 15.0
#: Minimum seconds between two checks for the file: in a folder, and behind a URL.
LOOK_S, FAR_LOOK_S = 0.2, 2.0


class StopFile:
    """Tells workers whether the trials are asked to stop. A call is cheap enough for every step."""

    def __init__(self, files: SweepFiles) -> None:
        self.files, self._every = files, LOOK_S if files.mirror is None else FAR_LOOK_S
        self._looked, self._there = 0.0, False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._there and now - self._looked >= self._every:
            self._looked, self._there = now, self.files.stops()
        return self._there


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
