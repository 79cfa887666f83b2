"""The queue of groups to train, shared by every backend: choose the next one, and finish or retry those that ended.

A backend takes groups with `next`, calls `started`, `row` and `ended`, and decides nothing else.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import TypedDict

from kdtune.errors import KdtuneError, LockLost, Problem
from kdtune.history.events import Outcome, Started
from kdtune.store.contents import EpochRecord
from kdtune.sweep.group import TrialGroup, outcome_in_store
from kdtune.sweep.scheduler import SweepScheduler
from kdtune.sweep.stopping import Stopping
from kdtune.train.prepared import Prepared

#: Called with every row and its group.
OnRow = Callable[[TrialGroup, "ReportedEpoch"], object]

DIED = "its process died (killed, or out of memory)"
#: Shown for a group whose worker ended without an error, but whose records are incomplete.
ENDED = "its process ended without an error, but its records are incomplete: check that all machines use one store"
ADVICE = "it also failed alone: use a smaller optimizer.batch, clip.size or student.width, or more resources.memory"


class ReportedEpoch(TypedDict):
    """One epoch of one trial."""

    key: str
    """Key of the trial."""
    row: EpochRecord
    """What the trial recorded of the epoch."""
    trained: bool
    """Whether this process trains the trial; otherwise it found the row."""


class ProcessDied(Exception):
    """The process that trained a group was killed, usually for lack of memory."""


class OutOfMemory(ProcessDied):
    """Ray killed the process, because its machine ran out of memory."""


class MachineLost(Exception):
    """The machine that trained a group has left the cluster. The group is not to blame."""


class MachineUnfit(Exception):
    """A machine that joined after the sweep began cannot train. Other machines can."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)


class GroupQueue:
    """The groups to train, in the scheduler's order and beginning with `first`; failed ones are retried."""

    def __init__(
        self, scheduler: SweepScheduler, first: TrialGroup, prepared: Prepared, stopping: Stopping, on_row: OnRow
    ) -> None:
        self.scheduler, self.prepared, self.stopping, self.on_row = scheduler, prepared, stopping, on_row
        self.sweep = scheduler.sweep
        self.device = "cuda" if self.sweep.resources.gpu > 0 else "cpu"
        self._trained: set[str] = set()  # keys of the trials that this run trains or has trained
        self._running: dict[str, TrialGroup] = {}
        self._again: deque[TrialGroup] = deque([first])
        self._alone: deque[TrialGroup] = deque()  # ran out of memory; retried one at a time, with nothing beside
        self._running_alone: str | None = None  # name of the group of `_alone` that runs
        self._failures: Counter[str] = Counter()

    def next(self) -> TrialGroup | None:
        """Return the next group to train, which then counts as begun, or None if there is none now (see `over`)."""
        group = None if self.stopping.reason is not None else self._next()
        if group is not None:
            self._running[group.name] = group
            self.stopping.begun.add(group.name)
        return group

    @property
    def over(self) -> bool:
        """Whether `next`, after it returned None, will always return None."""
        used_up = self.stopping.trials_used_up and not self._running
        return self.stopping.reason is not None or self.scheduler.history.complete or used_up

    def _next(self) -> TrialGroup | None:
        if self._running_alone is not None:
            return None
        if self._again:
            return self._again.popleft()
        if self._alone:
            if self._running:
                return None
            group = self._alone.popleft()
            self._running_alone = group.name
            return group
        if self.stopping.trials_used_up:
            return None  # groups that have begun may still be retried
        return self.scheduler.next_to_train(self.prepared.store)

    def started(self, group: TrialGroup) -> None:
        """Record that a worker has started the group."""
        self.scheduler.on_record(Started(group.name))

    def row(self, group: TrialGroup, found: ReportedEpoch) -> None:
        """Record an epoch of one of the group's trials."""
        if found["trained"]:
            self._trained.add(found["key"])
        self.on_row(group, found)

    def ended(self, group: TrialGroup, error: BaseException | None) -> None:
        """Finish the group whose worker ended, with or without `error`, or queue it again."""
        del self._running[group.name]
        self._running_alone = None if self._running_alone == group.name else self._running_alone
        outcome = outcome_in_store(group, self.sweep.objectives, self.prepared.store)
        if outcome is None and error is None and self.stopping.files.stop.exists():
            return  # it was stopped at a checkpoint: neither complete nor failed
        # Another sweep trained it while this worker waited for the lock, or just before.
        waited = outcome is not None and self._trained.isdisjoint(group.asked.every_key)
        if waited:
            self.stopping.waited.add(group.name)
        if outcome is None:
            outcome = self._failed(group, error)
        if outcome is not None:
            self.scheduler.finish(group, outcome, cached=waited)

    def _failed(self, group: TrialGroup, error: BaseException | None) -> Outcome | None:
        """Return the outcome if the group has failed for good; otherwise queue it again and return None."""
        # None of these is the trial's fault. LockLost: another machine trains it, and the next worker waits for that.
        if isinstance(error, (MachineLost, MachineUnfit, LockLost)):
            if isinstance(error, MachineUnfit):
                self.scheduler.remarks |= dict.fromkeys(map(str, error.problems))
            self._again.append(group)
            return None
        files = [self.prepared.store.trial(key) for key in group.asked.every_key]
        failed = next((trial for trial in files if trial.failure() is not None), None)
        died = isinstance(error, ProcessDied)
        memory = died if failed is None else failed.ran_out_of_memory()
        self._failures[group.name] += 1
        if self._failures[group.name] <= self.sweep.resources.retries:
            (self._alone if memory else self._again).append(group)
            return None
        words = failed.failure() if failed is not None else DIED if died else ENDED if error is None else _words(error)
        # A killed process says nothing of the reason, unless Ray gives one.
        too_large = group.kind == "candidate" and (isinstance(error, OutOfMemory) if failed is None else memory)
        return Outcome("infeasible" if too_large else "failed", error=f"{words}; {ADVICE}" if memory else words)


def _words(error: BaseException) -> str:
    text = str(error).strip()
    return text if isinstance(error, KdtuneError) else f"{type(error).__name__}: {text}"
