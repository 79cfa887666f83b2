"""The search of one block: candidates asked, results told to the sampler, and the next pruning thresholds.

The study is rebuilt from the ledger only when a fresh candidate is needed. A sweep that finds everything in the store
never calls its sampler.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from kdtune.config.space import Scalar
from kdtune.config.sweep import Block, SweepConfig
from kdtune.history.blocks import BlockHistory
from kdtune.history.events import Asked, KnownCandidate
from kdtune.sweep.prune import pruning_threshold
from kdtune.sweep.search import Search
from kdtune.sweep.study import Journal


class BlockSearch:
    """The candidates of a block, in order."""

    def __init__(
        self, sweep: SweepConfig, block: Block, history: BlockHistory, known: Sequence[KnownCandidate] = ()
    ) -> None:
        self.sweep, self.block, self.history = sweep, block, history
        self.candidates = sweep.candidates(block)
        self.notes: list[str] = []
        """Messages about candidates for which the ledger and a fresh ask differ."""
        self._search = Search(sweep, block, known)
        self._later: deque[Callable[[], object]] = deque()
        """Calls to the search that `catch_up` makes, in order."""
        self._told = self._written = 0
        self._peers: dict[str, list[float]] = {stage: [] for stage in sweep.prune.at}  # sorted by value

    def ask(self) -> dict[str, Scalar]:
        """Return the values of the next candidate."""
        self.catch_up()
        return self._search.ask()

    def ask_as(self, recorded: Asked) -> dict[str, Scalar]:
        """Return the values that the ledger records for the next candidate.

        They are kept even if the sampler would now draw others, because their trials exist and later candidates have
        learned from them.
        """
        kept = dict(recorded.values)

        def asked() -> None:
            values = self._search.ask(kept)
            if values != kept:
                self.notes.append(f"{recorded.group}: the search would now ask {values}; the recorded {kept} are kept")

        self._later.append(asked)
        return kept

    def catch_up(self) -> None:
        """Bring the study up to date with the ledger and the results that have arrived."""
        while self._later:
            self._later.popleft()()

    def may_ask(self) -> bool:
        """Return whether every result that the next candidate needs has arrived, and tell the sampler those."""
        asked = len(self.history.candidates)
        if asked >= self.candidates:
            return False
        while self._told < asked - self.sweep.search.window + 1:
            outcome = self.history.candidates[self._told].outcome
            if outcome is None:
                return False
            self._later.append(partial(self._search.tell, outcome))
            self._told += 1
            for stage in self._peers.keys() & outcome.stages if outcome.state != "failed" else ():
                insort(self._peers[stage], outcome.stages[stage])
        return True

    def write(self, journal: Journal) -> None:
        """Append ended candidates to Optuna's journal, up to the first that is still running."""
        while (group := self.history.candidates.get(self._written)) is not None and group.outcome is not None:
            journal.add(self.block, group.asked, group.outcome)
            self._written += 1

    def thresholds(self) -> dict[str, float]:
        """Return stage → pruning threshold of the next candidate, for the stages that have one."""
        mode = self.sweep.objectives[0].mode
        found = {stage: pruning_threshold(peers, self.sweep.prune, mode) for stage, peers in self._peers.items()}
        return {stage: level for stage, level in found.items() if level is not None}
