"""Fold the events of a sweep into the state of its groups and blocks."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable

from kdtune.errors import DamageError, Problem
from kdtune.history.blocks import BlockHistory, Mean
from kdtune.history.events import Asked, Ended, EpochEnd, EpochRow, Event, Known, Started
from kdtune.history.groups import ENDED, GroupHistory, State
from kdtune.history.metric import MetricSpec
from kdtune.history.promotion import Promoted
from kdtune.history.race import Looked, RaceHistory
from kdtune.history.record import SweepRecord
from kdtune.store.seal import note_damage


class FoldedEvents:
    """The state of a sweep's groups and blocks. Only `apply` changes it."""

    def __init__(self, record: SweepRecord, events: Iterable[Event] = ()) -> None:
        self.record = record
        self.groups: dict[str, GroupHistory] = {}
        """Every group that was asked for and that the sweep still has, by name."""
        self.blocks = {label: self._block(label, size) for label, size in record.blocks.items()}
        self.teachers = self._block("teachers", 0)
        """The teachers, which belong to no block, with their counts and their pace."""
        self.open: dict[str, GroupHistory] = {}
        """The groups that have not ended, by name."""
        self.running: dict[str, GroupHistory] = {}
        """The open groups that have begun, by name."""
        self.pace = Mean()
        """Seconds per epoch over all trials."""
        self.done = 0
        """Number of groups that have ended."""
        self.known: Known | None = None
        """What the search learned from earlier sweeps; None without `search.from`."""
        for event in events:
            self.apply(event)

    def _block(self, label: str, size: int) -> BlockHistory:
        block = BlockHistory(label, size, self.record.objectives, self.metric, max(self.record.stages.values()))
        if self.record.race is not None and label in self.record.blocks:
            block.race = RaceHistory(self.record.race, sum(self.record.blocks.values()))
        return block

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def metric(self) -> MetricSpec:
        """The metric of gains: the first objective that is not a cost, or the first objective."""
        return self.record.metric

    @property
    def objectives(self) -> tuple[MetricSpec, ...]:
        return self.record.objectives

    def block_of(self, group: GroupHistory) -> BlockHistory:
        """Return the group's block, or `teachers` for a teacher."""
        return self.teachers if group.asked.block is None else self.blocks[group.asked.block]

    def candidate_of(self, group: GroupHistory) -> GroupHistory:
        """Return the candidate whose values include those of `group`, a further seed; every other group is its own."""
        candidates = self.block_of(group).candidates
        return candidates.get(group.number, group) if group.kind == "further" and group.counted else group

    # ---- events ------------------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> GroupHistory | None:
        """Apply an event; return its group, or None if the event is ignored."""
        match event:
            case Asked():
                return self._ask(event)
            case Started(group):
                return self._start(self.groups.get(group))
            case EpochEnd(group, key, row):
                return self._advance(self.groups.get(group), key, row)
            case Ended(group, _, _):
                return self._end(self.groups.get(group), event)
            case Known():
                self.known = event
            case Looked():
                self._look(event)
            case Promoted():
                return self._promote(self.groups.get(event.group), event)
        return None

    def _ask(self, asked: Asked) -> GroupHistory | None:
        known = self.groups.get(asked.group)
        if known is not None and known.asked == asked:
            return known  # a resumed run asks again
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
            group.further = block.further.setdefault(group.name, [])
        elif asked.extends is not None:
            insort(block.further.setdefault(asked.extends, []), group, key=lambda further: further.seeds[0])
            group.counted = block.race is not None and (asked.look or 0) < len(block.race.recorded)
        else:
            block.teachers[group.name] = group
        return group

    def _void(self, group: GroupHistory) -> None:
        """Forget a group that is asked for with other content, and what depends on it: the refits and the race of its
        block and the later candidates (after a control, all of them). The run that asks for it asks for those again."""
        if group.kind in ("control", "candidate", "further"):
            block, first = self.block_of(group), group.number + 1 if group.kind == "candidate" else 0
            self._discard_looks(block, group.asked.look or 0)
            later = [g for n, g in block.candidates.items() if n >= first and group.asked.look is None]
            for other in [*block.refits.values(), *later]:
                self._forget(other)
            for other in block.candidates.values() if group.kind != "further" else ():
                self._demote(other, sum(event.point < first for event, _ in other.promotions))
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
        elif group.asked.extends is not None:
            block.further[group.asked.extends].remove(group)
        else:
            del block.teachers[group.name]

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
        group.reach(key, row, self.metric)
        return group

    def _end(self, group: GroupHistory | None, ended: Ended) -> GroupHistory | None:
        if group is None:
            return None
        if (wrong := group.misfit(ended.outcome, self.objectives[0].metric)) is not None:
            what = f"has an end of {group.name} with {wrong}: the row is skipped"
            note_damage(DamageError([Problem(f"the ledger of sweep {self.name}", what)]))
            return None
        if ended.promotion != len(group.promotions):
            return None  # of a promotion that the sweep does not have, or has passed
        if group.outcome is None:
            group.was_found = ended.cached
        if (group.outcome, group.cached) == (ended.outcome, ended.cached):
            return group  # every run that finds it writes it again
        outcome, block = ended.outcome, self.block_of(group)
        self._move(group, outcome.state)
        group.outcome, group.cached = outcome, ended.cached
        group.done, group.reached, group.shown = {}, {}, {}  # saves memory
        if group.kind == "candidate":
            block.rank(group)
            if (length := self._length(group)) is not None:
                block.lengths.add(length)
        elif group.kind == "further" and group.counted and group.number in block.candidates:
            block.rank(block.candidates[group.number])
        return group

    def _promote(self, group: GroupHistory | None, event: Promoted) -> GroupHistory | None:
        """Take up a pruned candidate again. An event that the search has no place for is ignored: an earlier run of the
        sweep had another number of candidates."""
        if group is None or group.kind != "candidate" or not event.belongs(self.block_of(group).size):
            return None
        if any(known == event for known, _ in group.promotions):
            return group  # a resumed run promotes again
        self._demote(group, event.promotion - 1)
        if group.outcome is not None and group.state == "pruned" and event.promotion == len(group.promotions) + 1:
            group.promotions.append((event, group.outcome))
            self._move(group, "pending")
        return group

    def _demote(self, group: GroupHistory, kept: int) -> None:
        """Discard the promotions of a candidate after the first `kept` ones: it is pruned as before."""
        if 0 <= kept < len(group.promotions):
            outcome = group.promotions[kept][1]
            del group.promotions[kept:]
            self._move(group, "pruned")
            group.outcome = outcome
            self.block_of(group).lengths.add(self._length(group) or 0)

    def _look(self, look: Looked) -> None:
        """Take a look of a race. A look that does not follow the last one is ignored: a damaged ledger lacks those
        between, and the next run of the sweep records all of them again."""
        block = self.blocks.get(look.block)
        race = None if block is None else block.race
        if block is None or race is None or look.number > len(race.recorded) + 1:
            return
        if not race.known(look):
            self._discard_looks(block, look.number - 1)
            race.recorded.append(look)
            for further in block.further_groups:
                further.counted = True  # those that an earlier look did not ask for were discarded
            block.rank_all()

    def _discard_looks(self, block: BlockHistory, kept: int) -> None:
        """Discard the looks after the first `kept` ones, and the further seeds that they asked for."""
        if block.race is None:
            return
        del block.race.recorded[kept:]
        for group in [*block.further_groups, *block.controls.get(0, {}).values()]:
            if group.asked.look is not None and group.asked.look > kept:
                self._forget(group)
        block.rank_all()

    def _length(self, group: GroupHistory) -> int | None:
        """Return the number of epochs of each trial of an ended candidate; None if it is unknown."""
        outcome = group.outcome
        if outcome is None or outcome.state in ("failed", "infeasible"):
            return None
        return group.epochs if outcome.state == "complete" else self.record.stages.get(outcome.stage or "")

    def _move(self, group: GroupHistory, state: State) -> None:
        """Move a group to another state, and discard its outcome."""
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
