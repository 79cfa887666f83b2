"""Whole sweeps (DESIGN 4.4, 4.5) whose outcomes are a function of the configuration: no Ray, no training."""

from __future__ import annotations

import inspect
import math
import sys
from pathlib import Path

import pytest
from helpers import CANDIDATES, WINDOW, sweep_of
from schedulers import all_of, drive, ended, key_of, outcome_of

from kdtune.store.files import append_jsonl, read_jsonl
from kdtune.sweep.group import Outcome, TrialGroup
from kdtune.sweep.ledger import Ledger
from kdtune.sweep.scheduler import SweepScheduler
from kdtune.sweep.search import Search


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple]:
    """All that the scheduler records with one group at a time."""
    return all_of(drive(sweep_of(), tmp_path_factory.mktemp("alone") / "ledger.jsonl"))


def test_the_campaign_is_worth_testing(alone: dict[str, tuple]) -> None:
    states = [end.state for *_, end in alone.values()]
    assert len(alone) == 2 + 2 + 2 * CANDIDATES  # teachers, controls, candidates
    assert set(states) == {"complete", "pruned", "failed"}


@pytest.mark.parametrize(("at_once", "order"), [(1, 1), (2, 0), (2, 1), (8, 0), (8, 1), (8, 2)])
def test_the_same_candidates_are_asked_and_pruned_at_any_parallelism(
    tmp_path: Path, alone: dict[str, tuple], at_once: int, order: int
) -> None:
    scheduler = drive(sweep_of(), tmp_path / "ledger.jsonl", at_once, order)
    assert all_of(scheduler) == alone
    assert scheduler.notes == []


@pytest.mark.parametrize("at_once", [1, 8])
def test_a_sweep_abandoned_anywhere_resumes_as_if_it_had_not_been(
    tmp_path: Path, alone: dict[str, tuple], at_once: int
) -> None:
    ledger, made = tmp_path / "ledger.jsonl", {}
    for start in range(30):
        scheduler = drive(sweep_of(), ledger, at_once, order=start, stop_after=start % 4, made=made)
        assert scheduler.notes == []
        with ledger.open("a") as file:
            file.write('{"event": "ended", "group": "fraction=1.0 · cand')  # the crash interrupted a write
        if scheduler.history.complete:
            break
    assert scheduler.history.complete
    assert start > 5
    assert all_of(scheduler) == alone


def test_an_ask_that_came_out_otherwise_is_kept_and_noted(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    drive(sweep_of(), ledger)
    rows = read_jsonl(ledger)
    changed = next(row for row in rows if row["event"] == "asked" and row["group"].endswith("=1.0 · candidate 4"))
    changed["values"] = {**changed["values"], "lambda": 1.25}  # as an older Optuna would have asked
    other = tmp_path / "other.jsonl"
    for row in rows:
        append_jsonl(other, row)
    scheduler = drive(sweep_of(), other)
    assert scheduler.groups["fraction=1.0 · candidate 4"].asked.values["lambda"] == 1.25
    assert scheduler.notes == []  # nothing more is asked, so nothing can differ
    scheduler.catch_up()
    assert any("candidate 4" in note and "1.25" in note for note in scheduler.notes)


def test_a_finished_sweep_asks_the_sampler_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = tmp_path / "ledger.jsonl"
    before = all_of(drive(sweep_of(), ledger))
    asked: list[object] = []
    monkeypatch.setattr(Search, "ask", lambda *given: asked.append(given))
    assert all_of(drive(sweep_of(), ledger)) == before
    assert asked == []


def test_a_sweep_that_grows_asks_on_as_if_it_had_been_so_long_from_the_start(tmp_path: Path) -> None:
    made: dict[str, Outcome] = {}
    drive(sweep_of(candidates=9), tmp_path / "grown.jsonl", made=made)
    grown = drive(sweep_of(candidates=14), tmp_path / "grown.jsonl", at_once=2, made=made)
    assert all_of(grown) == all_of(drive(sweep_of(candidates=14), tmp_path / "once.jsonl"))
    assert grown.notes == []


def test_bars_are_those_of_the_candidates_at_least_a_window_before(alone: dict[str, tuple]) -> None:
    barred = 0
    for fraction in (1.0, 0.25):
        mine = [alone[f"fraction={fraction} · candidate {n}"] for n in range(CANDIDATES)]
        for n, (_, _, thresholds, end) in enumerate(mine):
            for stage in ("early", "mid"):
                peers = [m[3].stages[stage] for m in mine[: max(0, n - WINDOW + 1)] if stage in m[3].stages]
                expected = None
                if len(peers) >= 2 and (places := math.ceil((len(peers) + 1) / 2)) <= len(peers):
                    expected = sorted(peers)[-places]
                assert thresholds.get(stage) == expected
                barred += expected is not None
                if stage in end.stages and expected is not None:
                    assert (end.stage == stage) == (end.stages[stage] < expected)
    assert barred > 4


def test_candidates_within_the_window_are_not_learned_from(tmp_path: Path, alone: dict[str, tuple]) -> None:
    changed = 3

    def otherwise(group: TrialGroup) -> Outcome:
        if group.name == f"fraction=1.0 · candidate {changed}":
            return Outcome("complete", ((5.0,),), stages={"early": 5.0, "mid": 5.0, "late": 5.0})
        return outcome_of(group)

    other = all_of(drive(sweep_of(), tmp_path / "ledger.jsonl", outcome=otherwise))
    names = [f"fraction=1.0 · candidate {n}" for n in range(CANDIDATES)]
    same = [other[name][:3] == alone[name][:3] for name in names]
    assert all(same[: changed + WINDOW])
    assert not all(same[changed + WINDOW :])
    # Blocks are compared afterwards; candidates never compete between them (4.5).
    assert all(other[name] == alone[name] for name in alone if name.startswith("fraction=0.25"))


def test_a_block_is_the_same_without_the_others(tmp_path: Path, alone: dict[str, tuple]) -> None:
    for blocks in ([0.25], [0.02, 0.25, 1.0]):
        scheduler = all_of(drive(sweep_of(blocks={"data.fraction": blocks}), tmp_path / f"{len(blocks)}.jsonl", 2))
        mine = {name: values for name, values in scheduler.items() if name.startswith("fraction=0.25")}
        assert mine == {name: values for name, values in alone.items() if name.startswith("fraction=0.25")}


def test_raising_candidates_extends_the_same_sequence(tmp_path: Path, alone: dict[str, tuple]) -> None:
    few, made = sweep_of(candidates=5), {}
    assert few.ledger == sweep_of().ledger
    assert few.ledger != sweep_of(window=WINDOW + 1).ledger
    ledger = tmp_path / "ledger.jsonl"
    before = all_of(drive(few, ledger, 8, made=made))
    assert before == {name: alone[name] for name in before}
    scheduler = drive(sweep_of(), ledger, 8, made=made)
    assert all_of(scheduler) == alone
    assert {name for name, group in scheduler.history.groups.items() if group.cached} == set(before)


@pytest.mark.parametrize("at_once", [1, 8])
def test_controls_run_first_and_are_never_pruned(tmp_path: Path, at_once: int) -> None:
    started: list[TrialGroup] = []

    def note(group: TrialGroup) -> Outcome:
        started.append(group)
        return outcome_of(group)

    drive(sweep_of(seeds=[0, 1]), tmp_path / "ledger.jsonl", at_once, outcome=note)
    controls = [group for group in started if group.kind == "control"]
    assert len(controls) == 2 * 2
    assert {(group.block.label, group.asked.seeds) for group in controls if group.block} == {
        (f"fraction={f}", (seed,)) for f in (1.0, 0.25) for seed in (0, 1)
    }
    assert all(group.asked.thresholds == {} and group.configs[0].teacher is None for group in controls)
    scheduler = SweepScheduler(sweep_of(seeds=[0, 1]), key_of, Ledger(tmp_path / "fresh.jsonl"))
    handed = [scheduler.next_group() for _ in range(10)]
    kinds = [group.kind for group in handed if group is not None]
    assert "candidate" not in kinds[: kinds.index("control") + 4]


def test_a_failed_teacher_fails_those_who_need_it_and_nothing_hangs(tmp_path: Path) -> None:
    def no_c3d(group: TrialGroup) -> Outcome:
        return Outcome("failed", error="out of memory") if group.name == "teacher c3d" else outcome_of(group)

    scheduler = drive(sweep_of(), tmp_path / "ledger.jsonl", 4, outcome=no_c3d)
    ends = {group.name: (group, end) for group, end in ended(scheduler)}
    assert len(ends) == 2 + 2 + 2 * CANDIDATES
    needed = [end for group, end in ends.values() if group.asked.values.get("teacher") == "c3d"]
    assert needed
    assert all(end.state == "failed" and "out of memory" in str(end.error) for end in needed)
    assert all(end.state == "complete" for group, end in ends.values() if group.kind == "control")
    assert any(end.state == "complete" for group, end in ends.values() if group.asked.values.get("teacher") == "r21d")
    # Running it again with a teacher that works gives the undisturbed sweep.


def test_a_failed_teacher_may_fail_any_number_of_candidates(tmp_path: Path) -> None:
    space = {"teacher": ["c3d"], "tau": [1 + t / 8 for t in range(200)]}
    sweep = sweep_of(space=space, sampler="grid", candidates=None, blocks={}, window=200)
    deepest, depth = sys.getrecursionlimit(), len(inspect.stack(0))
    # A thousand candidates would reach Python's own limit; here it is lower, so that two hundred do.
    sys.setrecursionlimit(depth + 150)
    try:
        scheduler = drive(sweep, tmp_path / "ledger.jsonl", outcome=lambda group: Outcome("failed", error="lost"))
    finally:
        sys.setrecursionlimit(deepest)
    assert sum(group.kind == "candidate" for group in scheduler.groups.values()) == 200
    assert {end.state for _, end in ended(scheduler)} == {"failed"}


def test_a_value_that_is_no_number_bars_nobody(tmp_path: Path) -> None:
    def broken(group: TrialGroup) -> Outcome:
        if group.kind == "candidate" and group.asked.number in (0, 2):
            return Outcome("failed", stages={"early": math.nan}, error="knn is nan at stage early")
        return outcome_of(group)

    scheduler = drive(sweep_of(), tmp_path / "ledger.jsonl", outcome=broken)
    thresholds = [level for group in scheduler.groups.values() for level in group.asked.thresholds.values()]
    assert thresholds
    assert all(math.isfinite(level) for level in thresholds)


def test_a_job_is_called_the_same_whatever_ended_first(tmp_path: Path) -> None:
    # Each block has its own data set, and so its own teachers: their names must not depend on who asks first.
    def names(search_seed: int, at_once: int, order: int) -> dict[str, tuple]:
        sweep = sweep_of(blocks={"data.split": [1, 2, 3]}, seed=search_seed, sampler="random", window=1, candidates=6)
        ledger = tmp_path / f"{search_seed}_{at_once}_{order}.jsonl"
        return {name: group.asked.keys for name, group in drive(sweep, ledger, at_once, order).groups.items()}

    for search_seed in range(4):
        expected = names(search_seed, 1, 0)
        assert sum("candidate" in name for name in expected) == 3 * 6
        for at_once, order in ((1, 1), (8, 2), (8, 3)):
            assert names(search_seed, at_once, order) == expected


def test_teachers_whose_own_teachers_differ_are_different_jobs(tmp_path: Path) -> None:
    """`small` sees all of the data in both blocks, but its own teacher sees as much as the student."""
    form = sweep_of(sampler="grid", space={"teacher": ["small"]}).model_dump(by_alias=True, exclude_unset=True)
    big = {"student": {"backbone": "c3d"}, "data": {"fraction": "match"}}
    form["teachers"] = {"big": big, "small": {"student": {"backbone": "r21d"}, "teacher": "big"}}
    scheduler = SweepScheduler(type(sweep_of()).model_validate(form), key_of, Ledger(tmp_path / "ledger.jsonl"))
    teachers = [group for group in scheduler.groups.values() if group.kind == "teacher"]
    assert sorted(group.name for group in teachers) == ["teacher small fraction=0.25", "teacher small fraction=1.0"]
    assert len({key for group in teachers for key in group.asked.keys}) == 2


@pytest.mark.parametrize("sampler", ["random", "gp", "cmaes", "qmc", "nsga2"])
def test_every_sampler_asks_the_same_at_any_parallelism_and_after_any_crash(tmp_path: Path, sampler: str) -> None:
    sweep = sweep_of(sampler=sampler, space={"lambda": {"log": [0.05, 5.0]}, "tau": {"range": [1.0, 8.0]}})
    alone = all_of(drive(sweep, tmp_path / "alone.jsonl"))
    assert all_of(drive(sweep, tmp_path / "many.jsonl", at_once=8, order=3)) == alone
    made: dict[str, Outcome] = {}
    drive(sweep, tmp_path / "crashed.jsonl", at_once=4, stop_after=9, made=made)
    scheduler = drive(sweep, tmp_path / "crashed.jsonl", at_once=3, order=5, made=made)
    assert all_of(scheduler) == alone
    assert scheduler.notes == []


def test_a_block_without_a_complete_candidate_is_named(tmp_path: Path) -> None:
    def none(group: TrialGroup) -> Outcome:
        barren = group.kind == "candidate" and group.block is not None and group.block.index == 1
        return Outcome("failed", error="out of luck") if barren else outcome_of(group)

    scheduler = drive(sweep_of(), tmp_path / "ledger.jsonl", outcome=none)
    assert scheduler.barren() == [f"block fraction=0.25: none of {CANDIDATES} candidates is complete; out of luck"]
