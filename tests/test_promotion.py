"""`prune: {promote: true}`: pruned candidates that are taken up again at fixed points, whatever the parallelism."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
from helpers import link_clips, sweep_of, sweep_results, train
from schedulers import all_of, drive

from kdtune.config.sweep import SweepConfig
from kdtune.errors import EXIT_INTERRUPTED, EXIT_OK
from kdtune.execute.driver import drive as drive_sweep
from kdtune.execute.in_process import InProcess
from kdtune.history.events import Event
from kdtune.history.promotion import Promoted
from kdtune.history.reading import read_history
from kdtune.history.record import SweepRecord
from kdtune.history.rows import ledger_event
from kdtune.history.sweep import SweepHistory
from kdtune.store import StoreFiles
from kdtune.store.files import read_jsonl
from kdtune.sweep.group import Outcome, TrialGroup
from kdtune.sweep.prune import reaches
from kdtune.sweep.scheduler import SweepScheduler
from kdtune.sweep.stopping import Cancel
from kdtune.train.session import Session
from kdtune.watch.live import Plain

WINDOW, STAGES = 3, ("early", "mid")
#: Candidate → its values at early, mid and late. The first ones are good, so that 4 is pruned although it would be the
#: best; later ones are bad, so that 4 would pass.
VALUES = {
    0: (0.50, 0.50, 0.50),
    1: (0.60, 0.60, 0.60),
    2: (0.55, 0.70, 0.58),
    3: (0.30, 0.20, 0.20),
    4: (0.40, 0.80, 0.90),
    5: (0.20, 0.20, 0.20),
    6: (0.10, 0.10, 0.10),
    7: (0.65, 0.60, 0.40),
    8: (0.05, 0.30, 0.30),
    9: (0.30, 0.75, 0.65),
}


def promoting(candidates: int = len(VALUES), **search: Any) -> Any:
    space = {"space": {"lambda": {"log": [0.05, 5.0]}, "tau": {"range": [1.0, 8.0]}}, "sampler": "tpe"}
    form = sweep_of(candidates=candidates, window=WINDOW, blocks={}, **{**space, **search})
    form = form.model_dump(by_alias=True, exclude_unset=True)
    form["prune"]["promote"] = True
    return type(sweep_of()).model_validate(form)


def outcome(group: TrialGroup) -> Outcome:
    """How the group ends by VALUES and its thresholds."""
    values = VALUES[group.asked.number or 0] if group.kind == "candidate" else (0.5, 0.5, 0.5)
    stages: dict[str, float] = {}
    for stage, value in zip((*STAGES, "late"), values, strict=True):
        stages[stage] = value
        if not reaches(value, group.asked.thresholds.get(stage), "max"):
            return Outcome("pruned", stages=stages, stage=stage)
    return Outcome("complete", ((values[-1],),), stages)


def promotions(scheduler: SweepScheduler) -> list[Promoted]:
    return [row for row in events(scheduler) if isinstance(row, Promoted)]


def events(scheduler: SweepScheduler) -> list[Any]:
    path = scheduler.ledger.path
    return [ledger_event(row, path) for row in read_jsonl(path, passing_over=True)]


def read(scheduler: SweepScheduler) -> SweepHistory:
    record = SweepRecord.of(scheduler.sweep, scheduler.ledger.path.name, "", {})
    return SweepHistory(record, events(scheduler))


class Oracle:
    """The rule written down again, without queues: who is promoted where, one fixed point after the other."""

    def __init__(self, candidates: int) -> None:
        self.reached: dict[int, int] = {}  # candidate → number of stages whose value is known
        self.stopped: dict[int, int] = {}  # candidate → stage where it is pruned
        self.promoted: list[tuple[int, int]] = []  # (point, candidate)
        due: list[tuple[int, int, dict[int, float]]] = []  # (point, candidate, thresholds)
        for point in range(candidates):
            self._tell([entry for entry in due if entry[0] <= point - WINDOW])
            due = [entry for entry in due if entry[0] > point - WINDOW]
            due += self._promote(point)
            due.append((point, point, self._bars(0)))
        self._tell(due)
        while due := self._promote(candidates):
            self._tell(due)
            candidates += 1

    def _tell(self, due: list[tuple[int, int, dict[int, float]]]) -> None:
        for _, number, bars in due:
            below = [stage for stage in bars if VALUES[number][stage] < bars[stage]]
            self.reached[number] = min(below, default=2) + 1
            self.stopped.pop(number, None)
            if below:
                self.stopped[number] = min(below)

    def _bar(self, stage: int, but: int | None = None) -> float | None:
        peers = [VALUES[n][stage] for n, reached in self.reached.items() if reached > stage and n != but]
        places = math.ceil((len(peers) + 1) / 2)
        return sorted(peers)[-places] if len(peers) >= 2 and places <= len(peers) else None

    def _bars(self, first: int) -> dict[int, float]:
        found = {stage: self._bar(stage) for stage in range(first, 2)}
        return {stage: bar for stage, bar in found.items() if bar is not None}

    def _promote(self, point: int) -> list[tuple[int, int, dict[int, float]]]:
        pass_now = []
        for number, stage in sorted(self.stopped.items()):
            bar = self._bar(stage, number)
            if bar is None or VALUES[number][stage] >= bar:
                pass_now.append((point, number, self._bars(stage + 1)))
        for _, number, _ in pass_now:
            del self.stopped[number]
            self.promoted.append((point, number))
        return pass_now


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> SweepScheduler:
    """One group at a time."""
    return drive(promoting(), tmp_path_factory.mktemp("alone") / "ledger.jsonl", outcome=outcome)


def test_those_are_promoted_that_would_pass(alone: SweepScheduler) -> None:
    oracle = Oracle(len(VALUES))
    found = [(event.point, int(event.group.split()[-1])) for event in promotions(alone)]
    assert found == oracle.promoted
    assert (9, 4) in found, "the best of all had been pruned early"
    candidates = alone.history.blocks["all"].candidates
    assert {n for n, group in candidates.items() if group.state == "pruned"} == oracle.stopped.keys()
    assert alone.history.blocks["all"].leader is candidates[4]
    assert [event.stage for event, _ in candidates[4].promotions] == ["early"]


@pytest.mark.parametrize("seed", range(4))
def test_the_rule_holds_for_any_values(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    luck = random.Random(seed)
    for number in range(14):
        trend = 0.04 * number * (-1) ** seed
        values = (0.6 - trend + 0.4 * luck.random(), 0.6 - trend + 0.6 * luck.random(), luck.random())
        monkeypatch.setitem(VALUES, number, values)
    scheduler = drive(promoting(14, sampler="random"), tmp_path / "ledger.jsonl", 4, seed, outcome=outcome)
    found = [(event.point, int(event.group.split()[-1])) for event in promotions(scheduler)]
    assert sorted(found) == Oracle(14).promoted
    assert all_of_history(read(scheduler)) == all_of_history(scheduler.history)


@pytest.mark.parametrize(("at_once", "order"), [(1, 1), (2, 0), (2, 3), (4, 1), (4, 2)])
def test_the_same_are_promoted_at_any_parallelism(
    tmp_path: Path, alone: SweepScheduler, at_once: int, order: int
) -> None:
    scheduler = drive(promoting(), tmp_path / "ledger.jsonl", at_once, order, outcome=outcome)
    assert all_of(scheduler) == all_of(alone)
    assert promotions(scheduler) == promotions(alone)
    assert all_of_history(read(scheduler)) == all_of_history(alone.history)


def all_of_history(history: SweepHistory) -> dict[str, tuple[Any, ...]]:
    return {name: (group.state, group.outcome, group.promotions) for name, group in history.groups.items()}


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_sweep_abandoned_anywhere_promotes_the_same(tmp_path: Path, alone: SweepScheduler, at_once: int) -> None:
    ledger, made = tmp_path / "ledger.jsonl", dict[str, Outcome]()
    for start in range(40):
        scheduler = drive(promoting(), ledger, at_once, order=start, stop_after=1, made=made, outcome=outcome)
        assert scheduler.notes == []
        with ledger.open("a") as file:
            file.write('{"event": "promoted", "group": "all')  # the crash interrupted a write
        if scheduler.history.complete:
            break
    assert start > 5
    assert all_of(scheduler) == all_of(alone)
    assert all_of_history(read(scheduler)) == all_of_history(alone.history)
    before = ledger.stat().st_size
    drive(promoting(), ledger, made=made, outcome=outcome)
    drive(promoting(), ledger, made=made, outcome=outcome)
    assert ledger.stat().st_size - before < before, "a run that finds everything writes hardly anything"


def test_a_sweep_that_grows_promotes_as_if_it_had_been_so_long_from_the_start(
    tmp_path: Path, alone: SweepScheduler
) -> None:
    made: dict[str, Outcome] = {}
    few = drive(promoting(candidates=7), tmp_path / "grown.jsonl", outcome=outcome)
    assert any(event.candidates == 7 for event in promotions(few)), "at its end, where the longer sweep goes on"
    grown = drive(promoting(), tmp_path / "grown.jsonl", 2, made=made, outcome=outcome)
    assert all_of(grown) == all_of(alone)
    assert all_of_history(read(grown)) == all_of_history(alone.history)
    again = drive(promoting(candidates=7), tmp_path / "grown.jsonl", outcome=outcome)
    assert all_of_history(read(again)) == all_of_history(few.history)


def test_what_regret_has_trained_counts_from_the_next_candidate_on(tmp_path: Path) -> None:
    """Candidate 5 is pruned for good. It is trained to its end after the first 7 candidates, and 6 later."""
    ledger, made, name = tmp_path / "ledger.jsonl", dict[str, Outcome](), "all · candidate 5"
    few = drive(promoting(7), ledger, made=made, outcome=outcome)
    assert few.history.groups[name].state == "pruned"
    told = drive(promoting(7), ledger, made=made, outcome=outcome, regretted=[name])
    assert told.history.groups[name].objective() == VALUES[5][-1], "at the end of the search"
    grown = drive(promoting(), ledger, 2, stop_after=2, made=made, outcome=outcome, regretted=[name])
    (event,) = (event for event in promotions(grown) if event.group == name and event.candidates is None)
    assert (event.point, event.regret) == (8, True)
    asked = max(grown.history.blocks["all"].candidates)
    later = drive(promoting(), ledger, 2, made=made, outcome=outcome, regretted=[name, "all · candidate 6"])
    points = {event.group: event.point for event in promotions(later) if event.regret and event.candidates is None}
    assert points[name] == 8, "as it was recorded"
    assert points.get("all · candidate 6", 99) > asked, "not before a candidate that had been asked"
    once = drive(promoting(), tmp_path / "plain.jsonl", outcome=outcome)
    assert [g.asked.values for g in once.history.blocks["all"].candidates.values()][:7] == [
        g.asked.values for g in later.history.blocks["all"].candidates.values()
    ][:7]
    assert all_of_history(read(later)) == all_of_history(later.history)


def test_a_promoted_trial_has_the_bits_of_one_that_was_never_pruned(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real training in this process, interrupted as the promoted candidate begins again."""
    monkeypatch.setattr("kdtune.sweep.block.pruning_threshold", lambda peers, *_: 2.0 if peers else None)
    monkeypatch.setattr("kdtune.sweep.promotion.pruning_threshold", lambda *_: None)
    search = {"space": {"alpha": [0.5, 1.0]}, "sampler": "grid", "window": 1}
    prune = {"at": ["early"], "min_peers": 1, "promote": True}
    form = {"name": "s", "trial": trial_form, "search": search, "objective": {"metric": "knn"}, "prune": prune}
    sweep, store = SweepConfig.model_validate(form), StoreFiles(tmp_path / "runs")
    link_clips(prepared.store.root, store.root)
    cancel, seen = Cancel(), list[Event]()

    class Watcher(Plain):
        def apply(self, event: Event) -> None:
            super().apply(event)
            seen.append(event)
            if isinstance(event, Promoted) and seen.count(event) == 1:
                cancel.ask()

    assert drive_sweep(sweep, "", store, InProcess(), None, Watcher([].append), cancel).exit_code == EXIT_INTERRUPTED
    name = "all · candidate 1"
    history = read_history(store, "s")
    assert (history.groups[name].state, history.groups[name].promoted) == ("running", ", promoted from early")
    end = drive_sweep(sweep, "", store, InProcess(), None, Watcher([].append), Cancel())
    assert (end.exit_code, end.trained) == (EXIT_OK, 1)
    group = read_history(store, "s").groups[name]
    assert (group.state, group.promoted) == ("complete", ", promoted from early")
    (row,) = (trial for trial in sweep_results(store, "s")["trials"] if trial["candidate"] == 1)
    assert row["promoted_from"] == ["early"]
    elsewhere = StoreFiles(tmp_path / "elsewhere")
    link_clips(prepared.store.root, elsewhere.root)
    whole = train(sweep.build(sweep.blocks()[0], {"alpha": 1.0}, 0), elsewhere, prepared).sound_result()
    assert whole is not None
    assert row["weights_sha256"] == whole["weights_sha256"]
    assert row["objective"] == whole["stages"]["late"]["validation"]["knn"]


def test_the_search_learns_the_full_result_once(alone: SweepScheduler) -> None:
    (search,) = alone.blocks
    search.has_ended()
    search.catch_up()
    study = search._search._study
    assert len(study.trials) == len(VALUES)
    for number, trial in enumerate(study.trials):
        group = alone.history.blocks["all"].candidates[number]
        assert trial.state.name == {"complete": "COMPLETE", "pruned": "PRUNED"}[group.state]
        assert group.state == "pruned" or trial.value == group.objective()


def test_without_promote_nothing_is_promoted(tmp_path: Path) -> None:
    form = promoting().model_dump(by_alias=True, exclude_unset=True)
    del form["prune"]["promote"]
    scheduler = drive(type(promoting()).model_validate(form), tmp_path / "ledger.jsonl", outcome=outcome)
    assert promotions(scheduler) == []
    assert scheduler.history.blocks["all"].candidates[4].state == "pruned"
