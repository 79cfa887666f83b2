"""The search of one block: candidates asked, results told to the sampler, and the next pruning thresholds.

The study is rebuilt from the ledger only when a fresh candidate is needed. A sweep that finds everything in the store
never calls its sampler.
"""

from __future__ import annotations

import sys
from bisect import insort
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from kdtune.config.space import Scalar
from kdtune.config.sweep import Block, SweepConfig
from kdtune.history.blocks import BlockHistory
from kdtune.history.events import Asked, KnownCandidate
from kdtune.history.front import Values
from kdtune.history.promotion import Promoted
from kdtune.sweep.feasible import Draw, Feasibility, RecordedCosts
from kdtune.sweep.promotion import Promotions
from kdtune.sweep.prune import pruning_front, pruning_threshold
from kdtune.sweep.search import Search
from kdtune.sweep.study import Journal


class BlockSearch:
    """The candidates of a block, in order."""

    def __init__(
        self,
        sweep: SweepConfig,
        block: Block,
        history: BlockHistory,
        known: Sequence[KnownCandidate] = (),
        costs: RecordedCosts | None = None,
    ) -> None:
        self.sweep, self.block, self.history = sweep, block, history
        self.candidates = sweep.candidates(block)
        self.notes: list[str] = []
        """Messages about candidates for which the ledger and a fresh ask differ."""
        self.feasibility = Feasibility(sweep, block, costs)
        self._search = Search(sweep, block, known, self.feasibility.judge)
        self._later: deque[Callable[[], object]] = deque()
        """Calls to the search that `catch_up` makes, in order."""
        self._told = self._written = self._rounds = 0
        self._promotions = Promotions(sweep)
        several = len(sweep.objectives) > 1
        self._peers: dict[str, list[float]] = {} if several else {stage: [] for stage in sweep.prune.at}  # sorted
        self._points: dict[str, list[Values]] = {stage: [] for stage in sweep.prune.at} if several else {}

    def ask(self) -> Draw:
        """Return the next candidate."""
        self.catch_up()
        return self._drawn(self._search.ask(), dict(self._search.redrawn))

    def _drawn(self, values: dict[str, Scalar], redrawn: Mapping[str, int]) -> Draw:
        return Draw(values, redrawn, self.feasibility.judge(values, len(self.history.candidates)))

    def ask_as(self, recorded: Asked) -> Draw:
        """Return the next candidate with the values that the ledger records for it.

        They are kept even if the sampler would now draw others, because their trials exist and later candidates have
        learned from them.
        """
        kept = dict(recorded.values)

        def asked() -> None:
            values = self._search.ask(kept)
            if values != kept:
                self.notes.append(f"{recorded.group}: the search would now ask {values}; the recorded {kept} are kept")

        self._later.append(asked)
        return self._drawn(kept, recorded.redrawn)

    def catch_up(self) -> None:
        """Bring the study up to date with the ledger and the results that have arrived."""
        while self._later:
            self._later.popleft()()

    def may_ask(self) -> bool:
        """Return whether every result that the next candidate needs has arrived, and tell the sampler those."""
        asked = len(self.history.candidates)
        if asked >= self.candidates:
            return False
        return self._tell(asked - self.sweep.search.window)

    def _tell(self, point: int) -> bool:
        """Tell the sampler, in order, the candidates up to number `point` and the promotions of the points up to it;
        return whether all of them have ended."""
        while True:
            over = self._told > min(point, len(self.history.candidates) - 1)
            # The promotions of a point come before the candidate that is asked there.
            again = self._promotions.next_due(point if over else self._told)
            if over and again is None:
                return True
            number = self._told if again is None else again
            outcome = self.history.candidates[number].outcome
            if outcome is None:
                return False
            if again is None:
                self._later.append(partial(self._search.tell, outcome))
                self.feasibility.note(number, self.history.candidates[number].asked.values, outcome)
                self._told += 1
            else:
                self._later.append(partial(self._search.tell_again, number, outcome))
            fresh = self._promotions.told(number, outcome, again is not None)
            for stage in self._peers.keys() & fresh:
                insort(self._peers[stage], fresh[stage])
            for stage in self._points.keys() & outcome.points:
                self._points[stage].append(outcome.points[stage])

    def has_ended(self) -> bool:
        """Return whether all candidates, and their promotions, have been asked and have ended."""
        return len(self.history.candidates) == self.candidates and self._tell(sys.maxsize)

    def promote(self, at_end: bool, regretted: Collection[int]) -> list[Promoted]:
        """Promote candidates at the fixed point before the next candidate, or `at_end` of the search; `regretted` are
        those that `report --regret` has trained to their end."""
        if not self.sweep.prune.promote:
            return []
        point = len(self.history.candidates) + (self._rounds if at_end else 0)
        thresholds, found = self.thresholds(), []
        for chosen in self._promotions.choose(self._peers, regretted):
            own = self._promotions.promote(chosen, point, thresholds)
            group = self.history.candidates[chosen.number]
            found.append(
                Promoted(
                    group=group.name,
                    promotion=len(group.promotions) + 1,
                    stage=chosen.stage,
                    point=point,
                    candidates=self.candidates if at_end else None,
                    regret=chosen.regret,
                    thresholds=own,
                )
            )
        self._rounds += at_end and bool(found)
        return found

    def write(self, journal: Journal) -> None:
        """Append ended candidates to Optuna's journal, up to the first that is still running. If candidates may be
        promoted, all are appended when the search is over, for the journal cannot change them."""
        if self.sweep.prune.promote and self.history.count("pending", "running"):
            return
        while (group := self.history.candidates.get(self._written)) is not None and group.outcome is not None:
            journal.add(self.block, group.asked, group.outcome)
            self._written += 1

    def thresholds(self) -> dict[str, float]:
        """Return stage → pruning threshold of the next candidate, for the stages that have one."""
        mode = self.sweep.objectives[0].mode
        found = {stage: pruning_threshold(peers, self.sweep.prune, mode) for stage, peers in self._peers.items()}
        return {stage: level for stage, level in found.items() if level is not None}

    def fronts(self) -> dict[str, list[Values]]:
        """Return stage → pruning front of the next candidate, for the stages that have one: for several objectives."""
        found = {stage: pruning_front(points, self.sweep.prune) for stage, points in self._points.items()}
        return {stage: front for stage, front in found.items() if front}
