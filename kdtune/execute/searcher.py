"""Hands groups to Ray Tune in the queue's order."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from kdtune.execute.cluster.nodes import Needs
from kdtune.execute.group_queue import GroupQueue
from kdtune.sweep.group import TrialGroup


class TuneSearcher(Searcher):
    """Ray Tune's search algorithm. `suggest` returns the next trial's configuration, or None if there is none now."""

    def __init__(self, queue: GroupQueue, needs: Needs | None = None) -> None:
        super().__init__()
        self.queue = queue
        self.needs = needs
        """What every node of a cluster must have."""
        self._groups: dict[str, TrialGroup] = {}
        """Tune's id of a trial → its group."""

    def suggest(self, trial_id: str) -> Any:
        group = self.queue.next()
        if group is None:
            return Searcher.FINISHED if self.queue.over else None
        self._groups[trial_id] = group
        sweep = self.queue.sweep
        return {
            "group": group,
            "objective": sweep.objectives[0],
            "prepared": self.queue.prepared,
            "workers": sweep.resources.workers,
            "device": self.queue.device,
            "sweep": sweep.name,
            "needs": self.needs,
        }

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        if not error:  # Ray Tune's callback reports the error right after this
            self.ended(trial_id, None)

    def ended(self, trial_id: str, error: BaseException | None) -> None:
        """Report to the queue that a group's actor has ended, with or without `error`."""
        self.queue.ended(self._groups.pop(trial_id), error)

    # Ray pickles a search algorithm and its callbacks to restore them later. Our snapshot is the ledger.
    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass
