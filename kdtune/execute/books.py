"""The books of a running sweep: forward its events, and sum up how it ended."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from kdtune.config.sweep import SweepConfig
from kdtune.errors import EXIT_FAILED_TRIALS, EXIT_INTERRUPTED, EXIT_OK
from kdtune.execute.group_queue import ReportedEpoch
from kdtune.history.events import EpochEnd, Event, Outcome, Started
from kdtune.history.race import Looked
from kdtune.history.record import SweepRecord
from kdtune.history.rows import epoch_row
from kdtune.store import TARGET_COUNTS, StoreFiles
from kdtune.sweep.group import TrialGroup
from kdtune.sweep.prune import reaches
from kdtune.sweep.scheduler import SweepScheduler
from kdtune.sweep.stopping import Stopping
from kdtune.tracking.ending import tracked_trial
from kdtune.tracking.publish import Publisher, Untracked
from kdtune.units import duration


class Watcher(Protocol):
    """Shows a sweep's progress to its user."""

    def say(self, text: str) -> None:
        """Show a line."""

    def begin(self, record: SweepRecord) -> None:
        """Receive the sweep's record, before its first event."""

    def apply(self, event: Event) -> None:
        """Receive an event. Calls may come from any thread, one at a time. An exception ends the sweep."""


@dataclass(frozen=True)
class Ending:
    """How a sweep ended."""

    sweep: str
    """The sweep's name."""
    exit_code: int
    seconds: float
    trained: int
    """Trials that this run trained, teachers included."""
    found: int
    """Trials that the store already had."""
    waited: int
    """Trials that another sweep trained while this one ran."""
    targets: Counter[str]
    """`targets_computed` and `targets_found` of this run's epochs, in samples."""
    notes: list[str]
    published: bool = True
    """Whether MLflow has received everything."""

    def account(self, store: str) -> list[str]:
        """Return lines with the trials trained and found in `store`, and the time taken."""
        waited = f", {self.waited} trained by another sweep meanwhile" if self.waited else ""
        lines = [f"{self.trained} trials trained, {self.found} found in {store}{waited}; {duration(self.seconds)}."]
        if self.targets:
            computed, found = (self.targets[name] for name in TARGET_COUNTS)
            lines.append(f"Teachers' targets, one a sample and epoch: {computed:,} computed, {found:,} found.")
        return lines


class SweepBooks:
    """Forwards events to the display, MLflow and the summary."""

    def __init__(
        self,
        sweep: SweepConfig,
        store: StoreFiles,
        publisher: Publisher | Untracked,
        watcher: Watcher,
        stopping: Stopping,
        commit: dict[str, str],
    ) -> None:
        self.sweep, self.store, self.publisher, self.watcher, self.stopping = sweep, store, publisher, watcher, stopping
        self.commit = commit
        self.raised: BaseException | None = None
        """The exception that the watcher raised on an event. It then receives no more, and the sweep ends."""
        self.targets: Counter[str] = Counter()
        self._counts: dict[str, tuple[int, int, int]] = {}
        """Group → its trials that were trained, found and waited for. A promoted candidate ends more than once."""
        self._trains: dict[str, bool] = {}
        """Key of each trial that a worker has reported on → whether this run trained it."""
        self._had: set[str] = set()
        """Keys of the trials of begun groups that the store had when their group began."""
        self.scheduler: SweepScheduler | None = None
        self._began = time.time()

    def apply(self, event: Event) -> None:
        """Forward the event to the watcher. Keep what it raises, which Ray Tune would treat as the trial's failure."""
        if isinstance(event, Looked) and self.scheduler is not None:
            self._publish_raced(self.scheduler, event)
        if isinstance(event, Started) and self.scheduler is not None:
            self._note_found(self.scheduler.groups[event.group])
        if self.raised is None:
            try:
                self.watcher.apply(event)
            except BaseException as error:
                self.raised = error
                self.stopping.cancel.ask()

    def on_row(self, group: TrialGroup, found: ReportedEpoch) -> None:
        key, row, trained = found["key"], found["row"], found["trained"]
        self._publish(group, key, "running", None)
        self._trains[key] = trained or self._trains.get(key, False)
        # A trial that resumes reports the rows of earlier runs again.
        if trained and row["at"] >= self._began:
            self.targets.update({name: row[name] for name in TARGET_COUNTS if name in row})
        self.apply(EpochEnd(group.name, key, epoch_row(row, self.store.trial(key).epochs)))

    def on_end(self, group: TrialGroup, outcome: Outcome, cached: bool) -> None:
        for key in group.asked.keys:
            self._publish(group, key, outcome.state, outcome.objective, cached)
        trials = group.asked.every_key if outcome.state == "complete" else group.asked.keys
        if group.name in self.stopping.begun:
            # A trial that failed before its first row counts as trained.
            trained = sum(self._trains.get(key, outcome.state in ("failed", "infeasible")) for key in trials)
            found = sum(key in self._had and not self._trains.get(key, False) for key in trials)
            self._counts[group.name] = (trained, found, len(trials) - trained - found)
        elif cached:
            self._counts[group.name] = (0, len(trials), 0)
        target, value, first = self.sweep.stop.target, outcome.objective, self.sweep.objectives[0]
        if (
            group.kind == "candidate"
            and target is not None
            and value is not None
            and reaches(value, target, first.mode)
        ):
            self.stopping.reached = f"stop.target: {group.name} has {first.metric} {value:.3f}"

    def ending(self, state: str, seconds: float, unsent: list[str]) -> Ending:
        scheduler = self.scheduler
        failed = scheduler is not None and scheduler.history.counts()["failed"]
        code = EXIT_INTERRUPTED if state == "interrupted" else EXIT_FAILED_TRIALS if failed else EXIT_OK
        notes = [*(scheduler.notes + scheduler.barren() if scheduler else ()), *unsent]
        if (budget := self.stopping.budget_note) is not None and not (scheduler and scheduler.history.complete):
            notes.append(f"{budget}: run the same command with a larger budget to resume the sweep")
        trained, found, waited = map(sum, zip((0, 0, 0), *self._counts.values(), strict=True))
        counts = (trained, found, waited, self.targets)
        return Ending(self.sweep.name, code, seconds, *counts, notes, published=not unsent)

    def _note_found(self, group: TrialGroup) -> None:
        """Note which trials of a group that begins are in the store already: it may lack only one of several seeds."""
        for key in group.asked.every_key if len(group.asked.every_key) > 1 else ():
            if key not in self._trains and self.store.trial(key).sound_result() is not None:
                self._had.add(key)

    def _publish_raced(self, scheduler: SweepScheduler, look: Looked) -> None:
        """Send the means over all seeds that a look saw, for every trial of its candidates."""
        candidates = scheduler.history.blocks[look.block].candidates
        for candidate in (candidates[number] for number in look.candidates):
            for part in candidate.parts:
                for key in part.keys:
                    self._publish(scheduler.groups[part.name], key, part.state, candidate.objective(), part.cached)

    def _publish(self, group: TrialGroup, key: str, state: str, objective: float | None, cached: bool = False) -> None:
        told = tracked_trial(self.store, group.asked, key, state, objective, cached=cached, commit=self.commit)
        self.publisher.update(told)
