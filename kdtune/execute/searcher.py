"""Hands groups to Ray Tune in the scheduler's order, takes note of their ends, and tries again what failed."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from ray.exceptions import ActorUnavailableError, RayActorError
from ray.tune.search import Searcher

from kdtune.errors import LockLost, ResourceError
from kdtune.execute.nodes import Needs
from kdtune.sweep.group import Outcome, TrialGroup, outcome_in_store
from kdtune.sweep.scheduler import SweepScheduler
from kdtune.sweep.stopping import Stopping
from kdtune.train.prepared import Prepared

DIED = "its process died (killed, or out of memory)"
#: Of a group whose process ended as it should.
ENDED = "its records do not reach the trial's end, though its process ended well: is it the same store everywhere?"
ADVICE = (
    "it was tried alone, too: a smaller optimizer.batch, clip.size or student.width, or more room (resources.memory)"
)
#: What Ray says of an actor whose machine has gone.
NODE_GONE = ("its node has died", "node was terminated", "The node the actor was running on")


class TuneSearcher(Searcher):
    """For Ray Tune this is a search algorithm: `suggest` gives the next trial's configuration, None for "not now"."""

    def __init__(
        self,
        scheduler: SweepScheduler,
        first: TrialGroup,
        prepared: Prepared,
        stopping: Stopping,
        needs: Needs | None = None,
    ) -> None:
        super().__init__()
        self.scheduler, self.prepared, self.stopping = scheduler, prepared, stopping
        self.needs = needs
        """Of every node of a cluster."""
        self.trained: set[str] = set()
        """Keys of the trials that workers of this run train or have trained."""
        self._running: dict[str, TrialGroup] = {}
        self._again: deque[TrialGroup] = deque([first])
        self._alone: deque[TrialGroup] = deque()
        """Those that ran out of memory: each is tried again when nothing else runs."""
        self._lonely: str | None = None
        """Ray's id of the one of them that runs."""
        self._failures: Counter[str] = Counter()

    def suggest(self, trial_id: str) -> Any:
        if self.stopping.reason is not None:
            return Searcher.FINISHED
        group = self._next(trial_id)
        if group is None:
            over = self.scheduler.done or (self.stopping.trials_used_up and not self._running)
            return Searcher.FINISHED if over else None
        self._running[trial_id] = group
        self.stopping.begun.add(group.name)
        sweep = self.scheduler.sweep
        return {
            "group": group,
            "objective": sweep.objectives[0],
            "prepared": self.prepared,
            "workers": sweep.resources.workers,
            "device": "cuda" if sweep.resources.gpu > 0 else "cpu",
            "sweep": sweep.name,
            "needs": self.needs,
        }

    def _next(self, trial_id: str) -> TrialGroup | None:
        if self._lonely is not None:
            return None
        if self._again:
            return self._again.popleft()
        if self._alone:
            if self._running:
                return None
            self._lonely = trial_id
            return self._alone.popleft()
        if self.stopping.trials_used_up:
            return None  # what has begun may be tried again
        return self.scheduler.next_to_train(self.prepared.store)

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        if not error:  # of an error its callback tells more, right after
            self.ended(trial_id, None)

    def ended(self, trial_id: str, error: BaseException | None) -> None:
        """A group's actor is through with it, or has failed with `error`."""
        group = self._running.pop(trial_id)
        self._lonely = None if self._lonely == trial_id else self._lonely
        outcome = outcome_in_store(group, self.scheduler.sweep.objectives, self.prepared.store)
        if outcome is None and error is None and self.stopping.files.stop.exists():
            return  # it has its checkpoint, and is neither complete nor failed
        # Another sweep has trained it while its worker waited for the lock, or just before.
        waited = outcome is not None and self.trained.isdisjoint((*group.keys, *group.finetuned))
        if waited:
            self.stopping.waited.add(group.name)
        if outcome is None:
            outcome = self._failed(group, error)
        if outcome is not None:
            self.scheduler.finish(group, outcome, cached=waited)

    def _failed(self, group: TrialGroup, error: BaseException | None) -> Outcome | None:
        """None where it is tried again."""
        said = str(error) if isinstance(error, RayActorError) else ""
        # Out of reach, while no node says that its process has died: then it is the node that has.
        if isinstance(error, ActorUnavailableError) or any(words in said for words in NODE_GONE):
            self._again.append(group)  # no fault of the trial's: this does not count
            return None
        if isinstance(error, LockLost):
            self._again.append(group)  # another machine trains it, and this one waits for that
            return None
        if isinstance(error, ResourceError):
            # A node that joined later cannot train (see nodes.py); elsewhere the group can.
            self.scheduler.remarks |= dict.fromkeys(map(str, error.problems))
            self._again.append(group)
            return None
        files = [self.prepared.store.trial(key) for key in (*group.keys, *group.finetuned)]
        failed = next((trial for trial in files if trial.failure() is not None), None)
        # Who was killed without a word was mostly killed for want of memory.
        memory = isinstance(error, RayActorError) if failed is None else failed.ran_out_of_memory()
        self._failures[group.name] += 1
        if self._failures[group.name] <= self.scheduler.sweep.resources.retries:
            (self._alone if memory else self._again).append(group)
            return None
        words = (DIED if error is not None else ENDED) if failed is None else failed.failure()
        return Outcome("failed", error=f"{words}; {ADVICE}" if memory else words)

    # Ray pickles and snapshots a search algorithm and its callbacks, to restore them. The ledger is our snapshot.
    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass
