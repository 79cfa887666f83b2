"""Decide which pruned candidates a block takes up again, at fixed points (DESIGN 4.4), as ASHA promotes.

L. Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020. There a configuration is promoted as
soon as it is among the best of its rung; which ones are depends on the order of arrival. Here the peers are those of a
fixed point. When candidate n is asked, exactly the candidates and the promotions of the points ≤ n − window have ended,
and nothing else counts. A promotion takes part like a candidate that is asked at the same point, so the same ones are
made at any parallelism. When all have ended, the last points follow, until nothing more is promoted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from kdtune.config.sweep import SweepConfig
from kdtune.history.events import Outcome
from kdtune.sweep.prune import pruning_threshold, reaches


@dataclass(frozen=True)
class Chosen:
    """A pruned candidate that is promoted."""

    number: int
    stage: str
    """The stage where it was pruned."""
    regret: bool
    """Whether it was trained to its end by `report --regret`; its value need not pass."""


class Promotions:
    """The pruned candidates of a block whose results have been told, and the promotions that have not ended."""

    def __init__(self, sweep: SweepConfig) -> None:
        self.prune, self.mode, self.stages = sweep.prune, sweep.objectives[0].mode, sweep.trial.milestones
        self._pruned: dict[int, Outcome] = {}
        self._due: deque[tuple[int, int]] = deque()  # (point, candidate), in order
        self._counted: dict[int, frozenset[str]] = {}  # candidate → stages whose values its peers have

    def next_due(self, point: int) -> int | None:
        """Return the first promoted candidate of the points ≤ `point` whose new end is not told yet; None without."""
        return self._due[0][1] if self._due and self._due[0][0] <= point else None

    def told(self, number: int, outcome: Outcome, again: bool) -> Mapping[str, float]:
        """Note the end of a candidate, `again` after a promotion; return stage → value that is new to its peers."""
        if again:
            self._due.popleft()
        if outcome.state == "pruned":
            self._pruned[number] = outcome
        values = outcome.stages if outcome.state in ("complete", "pruned") else {}
        known = self._counted.get(number, frozenset())
        self._counted[number] = known | values.keys()
        return {stage: value for stage, value in values.items() if stage not in known}

    def choose(self, peers: Mapping[str, Sequence[float]], regretted: Collection[int]) -> list[Chosen]:
        """Return the candidates to promote, by number: those that would pass at the stage where they were pruned, and
        those in `regretted`. `peers`: stage → sorted values of all told candidates, its own included."""
        chosen = []
        for number, outcome in sorted(self._pruned.items()):
            stage = outcome.stage or ""
            value, others = outcome.stages.get(stage), list(peers.get(stage, ()))
            if value is None:
                continue
            place = bisect_left(others, value)
            del others[place : place + 1]
            passes = reaches(value, pruning_threshold(others, self.prune, self.mode), self.mode)
            if number in regretted or passes:
                chosen.append(Chosen(number, stage, number in regretted))
        return chosen

    def promote(self, chosen: Chosen, point: int, thresholds: Mapping[str, float]) -> dict[str, float]:
        """Note that a candidate is promoted; return its thresholds at the later stages."""
        del self._pruned[chosen.number]
        self._due.append((point, chosen.number))
        if chosen.regret:
            return {}
        return {stage: level for stage, level in thresholds.items() if self.stages[stage] > self.stages[chosen.stage]}
