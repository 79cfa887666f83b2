"""The history of a sweep: its events folded into one object, the same while it runs and afterwards (DESIGN 4.9).

Whoever says what happened in a sweep, says it by a SweepHistory: nothing else works out a state, a best or a gain.
An event costs O(1), a picture O(running groups + blocks), so that sweeps of thousands of trials can be watched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kdtune.errors import DamageError, Problem
from kdtune.history.events import Asked, Ended, EpochEnd, EpochRow, Event, Started
from kdtune.history.gains import Gain
from kdtune.history.groups import ENDED, BlockHistory, GroupHistory, Mean, State
from kdtune.history.metric import MetricSpec
from kdtune.history.record import SweepRecord
from kdtune.store.seal import note_damage


class SweepHistory:
    """What is known of a sweep. It changes by `apply` alone; it is not locked.

    Example:
        history = read_history(Store("runs"), "lambda_tau")
        for block in history.blocks.values():
            best = block.leader
            if best is not None:
                gain = block.gain(best)
                print(block.label, best.number, best.objective(), gain and history.metric.gain_text(gain.mean))
    """

    def __init__(self, record: SweepRecord, events: Iterable[Event] = ()) -> None:
        self.record = record
        self.groups: dict[str, GroupHistory] = {}
        """Every group that was asked and that the sweep still has, by name."""
        self.blocks = {label: self._block(label, size) for label, size in record.blocks.items()}
        self.teachers = self._block("teachers", 0)
        """The teachers, which stand in no block: its counts and its pace."""
        self.open: dict[str, GroupHistory] = {}
        """The groups that have not ended, by name."""
        self.running: dict[str, GroupHistory] = {}
        """Those of them that have begun."""
        self.pace = Mean()
        """Seconds of an epoch, of whatever trial."""
        self.done = 0
        """How many groups have ended."""
        for event in events:
            self.apply(event)

    def _block(self, label: str, size: int) -> BlockHistory:
        return BlockHistory(label, size, self.record.objectives, self.metric, max(self.record.stages.values()))

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def metric(self) -> MetricSpec:
        """What gains are said of: the first objective that is no cost, or the first."""
        return self.record.metric

    @property
    def objectives(self) -> tuple[MetricSpec, ...]:
        return self.record.objectives

    @property
    def total(self) -> int:
        """How many groups were asked, and candidates are still to be asked."""
        return len(self.groups) + sum(block.unasked for block in self.blocks.values())

    @property
    def complete(self) -> bool:
        """Whether every group has ended that the sweep is to have."""
        return self.done >= self.total

    def block_of(self, group: GroupHistory) -> BlockHistory:
        """Return the group's block; for a teacher `teachers`."""
        return self.teachers if group.asked.block is None else self.blocks[group.asked.block]

    # ---- what it comes to --------------------------------------------------------------------------------------------

    def best(self, block: str) -> list[GroupHistory]:
        """Return a block's best candidate; of several objectives the Pareto set. Empty while none is complete."""
        return self.blocks[block].best

    def chosen_refits(self, block: str) -> list[GroupHistory]:
        """Return the refits of a block's controls, then those of the candidates that the search still chooses."""
        own = self.blocks[block]
        controls = [group for _, by_seed in sorted(own.controls.items()) for group in by_seed.values()]
        return [refit for group in (*controls, *own.best) if (refit := own.refit(group)) is not None]

    @property
    def comparisons(self) -> int:
        """How many candidates were held against a control, in all blocks. Pruned ones count: that they did not come to
        the end was decided by their figures, too."""
        return sum(
            group.state in ("complete", "pruned") and not block.is_control_itself(group)
            for block in self.blocks.values()
            for group in block.candidates.values()
        )

    def gains(self, block: str, videos: int | None = None) -> dict[int, Gain]:
        """Return candidate → gain over the block's first control, in `metric.unit`, with intervals that hold together
        for all candidates of the sweep. `videos` is how many were evaluated, where that is known."""
        own, comparisons = self.blocks[block], max(1, self.comparisons)
        found = {n: own.gain(group, comparisons, videos) for n, group in sorted(own.candidates.items())}
        return {number: gain for number, gain in found.items() if gain is not None}

    def counts(self) -> Mapping[State, int]:
        """Return state → how many groups, of all blocks and the teachers; unasked candidates are pending."""
        every = (self.teachers, *self.blocks.values())
        return {state: sum(block.count(state) for block in every) for state in (*ENDED, "running", "pending")}

    def in_order(self) -> Iterator[GroupHistory]:
        """Yield controls and candidates by block: controls by their place, then candidates by number."""
        for block in self.blocks.values():
            for _, by_seed in sorted(block.controls.items()):
                yield from by_seed.values()
            yield from (group for _, group in sorted(block.candidates.items()))

    # ---- what happens ------------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> GroupHistory | None:
        """Take note of an event; return the group that it is of, or None where the sweep has no such group."""
        match event:
            case Asked():
                return self._ask(event)
            case Started(group):
                return self._start(self.groups.get(group))
            case EpochEnd(group, key, row):
                return self._advance(self.groups.get(group), key, row)
            case Ended(group, _, _):
                return self._end(self.groups.get(group), event)

    def _ask(self, asked: Asked) -> GroupHistory | None:
        known = self.groups.get(asked.group)
        if known is not None and known.asked == asked:
            return known  # a run that resumes says so again
        if not self.record.wants(asked):
            return None
        if known is not None:
            self._void(known)
        tuning = self.record.tuning_epochs if asked.finetuned else 0
        group = self.groups[asked.group] = self.open[asked.group] = GroupHistory(asked, asked.epochs + tuning)
        block = self.block_of(group)
        block.counts[group.kind, "pending"] += 1
        block.epochs = group.epochs
        if asked.refits is not None:
            block.refits[asked.refits.group] = group
        elif group.kind == "control":
            block.controls.setdefault(group.number, {})[group.seeds[0]] = group
        elif group.kind == "candidate":
            block.candidates[group.number] = group
            block.seeds = len(group.seeds)
        return group

    def _void(self, group: GroupHistory) -> None:
        """Forget a group that is asked anew as another one, and what followed from it: the refits of its block, and the
        candidates that come after it. The run that asks it anew asks those again."""
        if group.kind in ("control", "candidate"):
            block, first = self.block_of(group), group.number + 1 if group.kind == "candidate" else 0
            for other in [*block.refits.values(), *(g for n, g in block.candidates.items() if n >= first)]:
                self._forget(other)
        self._forget(group)

    def _forget(self, group: GroupHistory) -> None:
        self._move(group, "pending")
        block = self.block_of(group)
        block.counts[group.kind, "pending"] -= 1
        del self.groups[group.name], self.open[group.name]
        if group.asked.refits is not None:
            block.refits.pop(group.asked.refits.group, None)
        elif group.kind == "control":
            del block.controls[group.number][group.seeds[0]]
        elif group.kind == "candidate":
            del block.candidates[group.number]

    def _start(self, group: GroupHistory | None) -> GroupHistory | None:
        if group is not None:
            self._move(group, "running")
        return group

    def _advance(self, group: GroupHistory | None, key: str, row: EpochRow) -> GroupHistory | None:
        if group is None:
            return None
        if group.state == "pending":
            self._move(group, "running")
        group.done[key], group.newest = row.epoch, key
        self.pace.add(row.seconds)
        self.block_of(group).pace.add(row.seconds)
        if (figure := self._figure(group, row)) is not None:
            group.shown, value = figure
            group.reached.setdefault(place_of(row), {})[key] = value
        return group

    def _figure(self, group: GroupHistory, row: EpochRow) -> tuple[MetricSpec, float] | None:
        """Return the metric that stands for a group while it runs, with its value in an epoch's row."""
        split = "test" if group.kind == "refit" else self.metric.split
        figures = (row.evaluation or {}).get(split, {})
        # Before fine-tuning an action head's metrics are not there, and a cost is no figure of an epoch.
        metric = self.metric if self.metric.column in figures else self.metric.as_knn()
        return (metric, figures[metric.column]) if metric.column in figures else None

    def _end(self, group: GroupHistory | None, ended: Ended) -> GroupHistory | None:
        if group is None:
            return None
        if any(len(values) != len(group.seeds) for values in ended.outcome.values):
            what = f"says of {group.name} how another number of trials ended than were asked: this is passed over"
            note_damage(DamageError([Problem(f"the ledger of sweep {self.name}", what)]))
            return None
        if group.outcome is None:
            group.was_found = ended.cached
        if (group.outcome, group.cached) == (ended.outcome, ended.cached):
            return group  # every run that finds it says so again
        outcome, block = ended.outcome, self.block_of(group)
        self._move(group, outcome.state)
        group.outcome, group.cached, group.done, group.reached = outcome, ended.cached, {}, {}  # thousands of them end
        if group.kind == "candidate":
            if len(outcome.objectives) == len(self.objectives):
                block.front.add(group.number, outcome.objectives)
            if (length := self._length(group)) is not None:
                block.lengths.add(length)
        return group

    def _length(self, group: GroupHistory) -> int | None:
        """Return how many epochs each trial of an ended candidate had; None where it is not known."""
        outcome = group.outcome
        if outcome is None or outcome.state == "failed":
            return None
        return group.epochs if outcome.state == "complete" else self.record.stages.get(outcome.stage or "")

    def _move(self, group: GroupHistory, state: State) -> None:
        """Bring a group to another state; how it had ended holds no longer."""
        block = self.block_of(group)
        block.counts[group.kind, group.state] -= 1
        block.counts[group.kind, state] += 1
        self.done += (state in ENDED) - (group.state in ENDED)
        if group.kind == "candidate" and group.outcome is not None:
            block.front.remove(group.number)
            if (length := self._length(group)) is not None:
                block.lengths.add(length, -1)
        group.state, group.outcome = state, None
        for held, holds in ((self.open, state not in ENDED), (self.running, state == "running")):
            if holds:
                held[group.name] = group
            else:
                held.pop(group.name, None)


def place_of(row: EpochRow) -> str:
    """Return what an evaluated row is called: its stage, or as in `epoch 3`."""
    return row.stage or f"epoch {row.epoch}"
