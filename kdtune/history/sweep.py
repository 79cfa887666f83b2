"""The history of a sweep: its events folded into one object, the same while it runs and afterwards (DESIGN 4.9).

Every reader of a sweep uses a SweepHistory: nothing else computes a state, a best candidate or a gain. An event costs
O(1), a picture O(running groups + blocks), so that sweeps of thousands of trials can be watched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kdtune.history.folded import FoldedEvents
from kdtune.history.gains import Gain
from kdtune.history.groups import STATES, GroupHistory, State
from kdtune.history.racing import fixed_seeds, fixed_trainings


class SweepHistory(FoldedEvents):
    """The state of a sweep. Only `apply` changes it. It is not thread-safe.

    Example:
        history = read_history(StoreFiles("runs"), "lambda_tau")
        for block in history.blocks.values():
            best = block.leader
            if best is not None:
                gain = block.gain(best)
                print(block.label, best.number, best.objective(), gain and history.metric.gain_text(gain.mean))
    """

    @property
    def total(self) -> int:
        """Number of groups that were asked for, plus candidates not yet asked for."""
        return len(self.groups) + sum(block.unasked for block in self.blocks.values())

    @property
    def complete(self) -> bool:
        """Whether every group of the sweep, and every race, has ended."""
        raced = all(block.race is None or block.race.ended for block in self.blocks.values())
        return raced and self.done >= self.total

    def best(self, block: str) -> list[GroupHistory]:
        """Return a block's best candidate, or the Pareto set of several objectives. Empty while none is complete."""
        return self.blocks[block].best

    def chosen_refits(self, block: str) -> list[GroupHistory]:
        """Return the refits of a block's controls, then those of the candidates that the search still chooses."""
        own = self.blocks[block]
        controls = [group for _, by_seed in sorted(own.controls.items()) for group in by_seed.values()]
        return [refit for group in (*controls, *own.best) if (refit := own.refit(group)) is not None]

    @property
    def comparisons(self) -> int:
        """Number of candidates that were compared with a control, over all blocks. Pruned candidates count, because
        their figures decided that they were pruned."""
        return sum(
            (group.state in ("complete", "pruned") or bool(group.promotions)) and not block.is_control_itself(group)
            for block in self.blocks.values()
            for group in block.candidates.values()
        )

    def gains(self, block: str, videos: int | None = None) -> dict[int, Gain]:
        """Return candidate → gain over the block's first control, in `metric.unit`. The intervals are
        corrected for all candidates of the sweep. `videos` is the number of evaluated videos, if known."""
        own, comparisons = self.blocks[block], max(1, self.comparisons)
        found = {n: own.gain(group, comparisons, videos) for n, group in sorted(own.candidates.items())}
        return {number: gain for number, gain in found.items() if gain is not None}

    @property
    def race_words(self) -> str:
        """How many trainings the races took, and how many a sweep with fixed seeds would take for the same power; empty
        without a race."""
        rules, sizes = self.record.race, list(self.record.blocks.values())
        if rules is None:
            return ""
        took = sum(block.trainings for block in self.blocks.values())
        so_far = "" if all(block.race is not None and block.race.ended for block in self.blocks.values()) else " so far"
        controls = max((len(block.controls) for block in self.blocks.values()), default=1)
        fixed, seeds = fixed_trainings(rules, sizes, max(1, controls)), fixed_seeds(rules, sum(sizes))
        return (
            f"The race took {took} trainings{so_far}; {seeds} seeds for every candidate and control, which decide as "
            f"much, would take {fixed}."
        )

    def counts(self) -> Mapping[State, int]:
        """Return state → number of groups, over all blocks and the teachers; unasked candidates are pending."""
        every = (self.teachers, *self.blocks.values())
        return {state: sum(block.count(state) for block in every) for state in STATES}

    def in_order(self) -> Iterator[GroupHistory]:
        """Yield controls and candidates by block: controls by their place, then candidates by number."""
        for block in self.blocks.values():
            for _, by_seed in sorted(block.controls.items()):
                yield from by_seed.values()
            for _, group in sorted(block.candidates.items()):
                yield from group.every_part
