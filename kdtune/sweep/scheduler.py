"""Decide which groups a sweep has and which may start next, without Ray (DESIGN 4.4, 4.5).

Within a block, candidate n is asked as soon as all candidates ≤ n − window have ended. Teachers come first, because
other groups wait for them; then controls; then candidates by number; then the further seeds of a race; then refits,
which are asked when their block's search and race are over. A ledger beside the sweep records what was asked. Apart
from the sampler and the looks of a race, the cost of an event does not grow with the number of groups.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Collection
from dataclasses import replace

from kdtune.config.sweep import SweepConfig
from kdtune.history.events import Ended, Event, Kind, LedgerEvent, Outcome
from kdtune.history.groups import GroupHistory
from kdtune.history.record import SweepRecord
from kdtune.history.sweep import SweepHistory
from kdtune.store import StoreFiles
from kdtune.sweep.block import BlockSearch
from kdtune.sweep.feasible import RecordedCosts
from kdtune.sweep.group import TrialGroup, outcome_in_store
from kdtune.sweep.groups import GroupFactory, KeyOf, candidate_name
from kdtune.sweep.ledger import Ledger
from kdtune.sweep.race import take_look
from kdtune.sweep.study import Journal

#: Called with every group as it ends, its outcome, and whether the store already had it.
OnEnd = Callable[[TrialGroup, Outcome, bool], object]
#: Called with every event of the ledger, including those of earlier runs, and with every start.
OnRecord = Callable[[Event], object]
#: Order in which groups start; lower first.
RANK: dict[Kind, int] = {"teacher": 0, "control": 1, "candidate": 2, "further": 3, "refit": 4}


class SweepScheduler:
    """The groups of a sweep and their outcomes."""

    def __init__(
        self,
        sweep: SweepConfig,
        key_of: KeyOf,
        ledger: Ledger,
        journal: Journal | None = None,
        on_end: OnEnd = lambda *_: None,
        on_record: OnRecord = lambda _: None,
        costs: RecordedCosts | None = None,
        regretted: Collection[str] = (),
    ) -> None:
        """`regretted`: names of the groups that `report --regret` has trained to their end."""
        self.sweep, self.ledger, self.journal = sweep, ledger, journal
        self.on_end, self.on_record, self.regretted = on_end, on_record, regretted
        self.history = SweepHistory(SweepRecord.of(sweep, ledger.path.name, "", {}))
        """The groups that this run has asked, and their outcomes."""
        self.groups: dict[str, TrialGroup] = {}
        """The same groups, with what their training needs."""
        self.remarks: dict[str, None] = {}
        """Further notes for the user, each once."""
        if ledger.known is not None:
            self._record(ledger.known)
        known = ledger.known.candidates if ledger.known is not None else ()
        self.blocks = [
            BlockSearch(sweep, block, history, [each for each in known if each.block == block.label], costs)
            for block, history in zip(sweep.blocks(), self.history.blocks.values(), strict=True)
        ]
        self._made = GroupFactory(sweep, key_of)
        self._ready: list[tuple[int, int, int, TrialGroup]] = []  # a heap; the third item is unique
        self._order = itertools.count()
        self._waiting: dict[str, list[TrialGroup]] = defaultdict(list)  # a teacher's key → the groups that need it
        self._lost: deque[TrialGroup] = deque()  # groups whose teachers have failed
        self._in_work: set[str] = set()  # keys of trials that are being trained
        for search in self.blocks:
            for group in self._made.controls(search.block):
                self._add(group)
        for search in self.blocks:
            self._ask_more(search)

    # ---- what runs next ----------------------------------------------------------------------------------------------

    def next_group(self) -> TrialGroup | None:
        """Return the next group whose teachers are complete, or None if there is none now. It counts as started."""
        # A teacher and a control can be the same trial: it is trained once, then found in the store.
        held = []
        found = None
        while self._ready and found is None:
            entry = heapq.heappop(self._ready)
            if self._in_work.isdisjoint(entry[-1].asked.keys):
                found = entry[-1]
                self._in_work.update(found.asked.keys)
            else:
                held.append(entry)
        for entry in held:
            heapq.heappush(self._ready, entry)
        return found

    def next_to_train(self, store: StoreFiles) -> TrialGroup | None:
        """Return the next group that `store` does not have complete, or None if there is none now. Finish the
        groups before it from the store."""
        while (group := self.next_group()) is not None:
            outcome = outcome_in_store(group, self.sweep.objectives, store)
            if outcome is None:
                return group
            self.finish(group, outcome, cached=outcome.state != "infeasible")
        return None

    @property
    def notes(self) -> list[str]:
        """Notes for the user: differences between the ledger and a fresh ask, and the remarks."""
        return [note for search in self.blocks for note in search.notes] + self._redrawn() + list(self.remarks)

    def _redrawn(self) -> list[str]:
        """Return a note for each block in which draws broke a constraint."""
        found = []
        for search in self.blocks:
            broken = [f"{number} broke {bound}" for bound, number in search.history.redrawn.items()]
            if broken:
                found.append(f"block {search.block.label}: infeasible draws were drawn again: {', '.join(broken)}")
        return found

    def catch_up(self) -> None:
        """Replay the ledger into the samplers, which takes as long as the original asks. The next fresh ask does so
        anyway; a sweep that finds everything in the store never needs it."""
        for search in self.blocks:
            search.catch_up()

    def barren(self) -> list[str]:
        """Return a note for each block whose candidates have all ended, none of them complete."""
        found = []
        for search in self.blocks:
            groups = search.history.candidates.values()
            lost = {group.state for group in groups} <= {"pruned", "infeasible", "failed"}
            if len(groups) == search.candidates and lost:
                error = next((group.error for group in groups if group.error), "all were pruned")
                found.append(f"block {search.block.label}: none of {len(groups)} candidates is complete; {error}")
        return found

    def finish(self, group: TrialGroup, outcome: Outcome, cached: bool) -> None:
        """Record how `group` ended, and ask the groups that this allows."""
        self._end(group, outcome, cached)
        while self._lost:  # ending one may ask more candidates, which may be lost as well
            lost = self._lost.popleft()
            failed = next(teacher for teacher in map(self._teacher, lost.needs) if teacher.state == "failed")
            self._end(lost, Outcome("failed", error=f"its teacher failed: {failed.error}"), cached=False)

    def _end(self, group: TrialGroup, outcome: Outcome, cached: bool) -> None:
        self._in_work.difference_update(group.asked.keys)
        self._record(Ended(group.name, outcome, cached, group.promotion))
        self.on_end(group, outcome, cached)
        if group.kind == "teacher":
            for waiting in self._waiting.pop(group.asked.keys[0], []):
                self._place(waiting)
        if group.kind == "candidate" and group.block is not None:
            search = self.blocks[group.block.index]
            self._ask_more(search)
            if self.journal is not None:
                search.write(self.journal)
        if group.kind in ("control", "candidate", "further") and group.block is not None:
            search = self.blocks[group.block.index]
            self._race(search)
            self._ask_refits(search)

    # ---- asking ------------------------------------------------------------------------------------------------------

    def _ask_more(self, search: BlockSearch) -> None:
        while search.may_ask():
            number = len(search.history.candidates)
            recorded = self.ledger.asked(candidate_name(search.block, number))
            # What `--regret` has trained since then counts from the next new candidate on.
            label = search.block.label
            self._promote(search, self.regretted if recorded is None else self.ledger.regretted(label, number))
            draw = search.ask() if recorded is None else search.ask_as(recorded)
            thresholds = search.thresholds()
            self._add(self._made.candidate(search.block, number, draw.values, thresholds, draw, search.fronts()))
        if self.sweep.prune.promote and search.has_ended():
            self._promote(search, self.regretted, at_end=True)

    def _promote(self, search: BlockSearch, regretted: Collection[str], at_end: bool = False) -> None:
        """Take up pruned candidates of a block again, at a fixed point."""
        numbers = [n for n, group in search.history.candidates.items() if group.name in regretted]
        for event in search.promote(at_end, numbers):
            pruned = self.groups[event.group]
            asked = replace(pruned.asked, thresholds=event.thresholds)
            group = self.groups[event.group] = replace(pruned, asked=asked, promotion=event.promotion)
            self._record(event)
            self._place(group)

    def _race(self, search: BlockSearch) -> None:
        """Take a look at the block if all trainings that it needs have ended, and ask for what it finds necessary."""
        race = search.history.race
        while race is not None and not race.ended and not search.history.count("pending", "running"):
            number = len(race.looks) + 1
            looked = take_look(search.history, self.ledger.looked(search.block.label, number))
            self._record(looked)
            if looked.decision is None:
                left = [self.groups[candidate_name(search.block, candidate)] for candidate in looked.left]
                for seed in race.next_seeds:
                    for group in self._made.further(search.block, number, seed, left):
                        self._add(group)

    def _ask_refits(self, search: BlockSearch) -> None:
        """Ask the refits on the whole list when all controls and candidates of the block, and its race, have ended."""
        race = search.history.race
        if not self.sweep.refit or search.history.count("pending", "running") or (race is not None and not race.ended):
            return
        chosen = {group.name for group in search.history.best}
        for group in [group for group in self.groups.values() if group.block is search.block]:
            history = self.history.groups[group.name]
            if group.name in chosen or (group.kind == "control" and history.state == "complete"):
                self._add(self._made.refit(group, list(history.values())))

    def _add(self, group: TrialGroup) -> None:
        for key in group.needs:
            teacher = self._made.teachers[key]
            if teacher.name not in self.groups:
                self._add(teacher)
        self.groups[group.name] = group
        self._record(group.asked)
        self._place(group)

    def _place(self, group: TrialGroup) -> None:
        """Queue the group as ready, as waiting for a teacher, or as lost if a teacher failed."""
        missing = [key for key in group.needs if self._teacher(key).outcome is None]
        if missing:
            self._waiting[missing[0]].append(group)
        elif any(self._teacher(key).state == "failed" for key in group.needs):
            self._lost.append(group)
        else:
            heapq.heappush(self._ready, (RANK[group.kind], group.asked.number or 0, next(self._order), group))

    def _teacher(self, key: str) -> GroupHistory:
        return self.history.groups[self._made.teachers[key].name]

    def _record(self, event: LedgerEvent) -> None:
        self.ledger.add(event)
        self.history.apply(event)
        self.on_record(event)
