"""How far the search of one block has come: what was asked, what it was told, the thresholds of the next candidate.

What the ledger holds is asked again, for the study that later asks learn from, but only when something fresh is to be
asked: a sweep that finds everything in the store asks its sampler nothing.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from kdtune.config.space import Scalar
from kdtune.config.sweep import Block, SweepConfig
from kdtune.sweep.group import Outcome, TrialGroup
from kdtune.sweep.prune import pruning_threshold
from kdtune.sweep.search import Finished, Search
from kdtune.sweep.study import Journal


class BlockSearch:
    """The candidates of a block, in the order of their numbers."""

    def __init__(self, sweep: SweepConfig, block: Block) -> None:
        self.sweep, self.block = sweep, block
        self.candidates = sweep.candidates(block)
        self.groups: list[TrialGroup] = []
        """The candidates asked so far."""
        self.notes: list[str] = []
        """For people: where the ledger and a fresh ask differ."""
        self._search = Search(sweep, block)
        self._later: deque[Callable[[], object]] = deque()
        """What the search has still to be asked and told, in order."""
        self._told = self._written = 0
        self._peers: dict[str, list[float]] = {stage: [] for stage in sweep.prune.at}  # in order of their values

    def ask(self) -> dict[str, Scalar]:
        """Values of the next candidate."""
        self.catch_up()
        return self._search.ask()

    def ask_as(self, recorded: dict[str, Any]) -> dict[str, Scalar]:
        """The same where a row of the ledger says what was asked. It stays asked: its trials are there, and later
        candidates have learned from them."""

        def asked() -> None:
            values = self._search.ask(recorded["values"])
            if values != recorded["values"]:
                note = f"the search would now ask {values}; kept: {recorded['values']}"
                self.notes.append(f"{recorded['group']}: {note}")

        self._later.append(asked)
        return recorded["values"]

    def catch_up(self) -> None:
        """Ask and tell the search what is in the ledger and what has ended."""
        while self._later:
            self._later.popleft()()

    def may_ask(self, outcomes: dict[str, Outcome]) -> bool:
        """Have all ended that the next candidate learns from? Then the search is told of exactly those."""
        if len(self.groups) >= self.candidates:
            return False
        while self._told < len(self.groups) - self.sweep.search.window + 1:
            outcome = outcomes.get(self.groups[self._told].name)
            if outcome is None:
                return False
            self._later.append(partial(self._search.tell, finished(self.sweep, outcome)))
            self._told += 1
            for stage in self._peers.keys() & outcome.stages if outcome.state != "failed" else ():
                insort(self._peers[stage], outcome.stages[stage])
        return True

    def write(self, journal: Journal, outcomes: dict[str, Outcome]) -> None:
        """Give Optuna's journal the candidates that have ended, as far as all before them have as well."""
        while self._written < len(self.groups) and (group := self.groups[self._written]).name in outcomes:
            journal.add(group, finished(self.sweep, outcomes[group.name]), outcomes[group.name].error)
            self._written += 1

    def thresholds(self) -> dict[str, float]:
        """Stage → what the next candidate must reach there, for the stages that have a threshold."""
        mode = self.sweep.objectives[0].mode
        found = {stage: pruning_threshold(peers, self.sweep.prune, mode) for stage, peers in self._peers.items()}
        return {stage: level for stage, level in found.items() if level is not None}


def finished(sweep: SweepConfig, outcome: Outcome) -> Finished:
    """An outcome as the search, and Optuna's journal, are told of it."""
    epochs = sweep.trial.milestones
    stages = {epochs[stage]: value for stage, value in outcome.stages.items()}
    return Finished(outcome.state, outcome.objectives, stages)
