"""Races: looks at fixed points decide the same whatever runs side by side, and after any crash (DESIGN 4.12)."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import sweep_of
from schedulers import all_of, drive

from kdtune.history.race import Looked
from kdtune.history.record import SweepRecord
from kdtune.history.rows import ledger_event
from kdtune.history.sweep import SweepHistory
from kdtune.store.files import read_jsonl
from kdtune.sweep.group import Outcome, TrialGroup
from kdtune.sweep.scheduler import SweepScheduler

SEEDS = {"race": {"first": 2, "most": 5}}


def raced(**search: Any) -> Any:
    grid = {"sampler": "grid", "space": {"teacher": ["c3d"], "lambda": [0.1, 0.2, 0.5, 1.0, 2.0]}, "candidates": None}
    return sweep_of(**{"seeds": SEEDS, **grid, **search})


def noisy(group: TrialGroup) -> Outcome:
    """Candidate 2 is 10 points better than the control, the others are up to 6 points better or worse; seeds differ by
    up to a point. In the block with a quarter of the data nothing is better, and the spread is ten times as large."""
    asked = group.asked
    values = []
    for seed in asked.seeds:
        luck = random.Random(f"{asked.block} {asked.role} {asked.number} {seed}").uniform(-1, 1)
        effect = (0.01, -0.04, 0.1, -0.06, 0.05)[(asked.number or 0) % 5] if asked.role == "candidate" else 0.0
        few = asked.block == "fraction=0.25"
        values.append(0.5 + (0.0 if few else effect) + (0.05 if few else 0.005) * luck)
    mean = sum(values) / len(values)
    return Outcome("complete", (tuple(values),), {"early": 0.1, "mid": 0.2, "late": mean})


def looks_of(history: SweepHistory) -> list[Looked]:
    return [look for block in history.blocks.values() if block.race is not None for look in block.race.looks]


def values_of(history: SweepHistory) -> dict[tuple[str, int], dict[int, float]]:
    """(block, candidate) → seed → value."""
    return {(b, n): g.values() for b, block in history.blocks.items() for n, g in block.candidates.items()}


def read(scheduler: SweepScheduler) -> SweepHistory:
    """Return the history that a reader makes of the scheduler's ledger."""
    path = scheduler.ledger.path
    record = SweepRecord.of(scheduler.sweep, path.name, "", {})
    return SweepHistory(record, (ledger_event(row, path) for row in read_jsonl(path, passing_over=True)))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> SweepScheduler:
    """A race with one group at a time."""
    return drive(raced(), tmp_path_factory.mktemp("alone") / "ledger.jsonl", outcome=noisy)


def test_a_race_drops_candidates_and_ends(alone: SweepScheduler) -> None:
    full, few = (block.race for block in alone.history.blocks.values())
    assert full is not None
    assert few is not None
    assert (full.decision, few.decision) == ("better", "not decided")
    assert full.dropped
    assert 2 not in full.dropped
    assert alone.history.best("fraction=1.0")[0].number == 2
    assert [len(look.control) for look in few.looks] == [2, 3, 5]
    for block in alone.history.blocks.values():
        for look in block.race.looks if block.race is not None else ():
            for number, values in look.candidates.items():
                assert len(values) == len(look.control)
                known = block.candidates[number].values()
                assert list(known.values())[: len(values)] == list(values)
            for number in look.dropped:
                assert block.candidates[number].dropped == look.number
                assert list(block.candidates[number].values()) == list(range(len(look.control)))


@pytest.mark.parametrize(("at_once", "order"), [(1, 1), (2, 2), (4, 3), (4, 4), (8, 5)])
def test_the_same_is_decided_at_any_parallelism(
    tmp_path: Path, alone: SweepScheduler, at_once: int, order: int
) -> None:
    scheduler = drive(raced(), tmp_path / "ledger.jsonl", at_once, order, outcome=noisy)
    assert looks_of(scheduler.history) == looks_of(alone.history)
    assert all_of(scheduler) == all_of(alone)


def test_a_race_changes_no_candidate_and_trains_the_trials_of_fixed_seeds(
    tmp_path: Path, alone: SweepScheduler
) -> None:
    learning = {"sampler": "tpe", "space": {"lambda": {"log": [0.05, 5.0]}}, "candidates": 6, "window": 2}
    mine = all_of(drive(raced(**learning), tmp_path / "raced.jsonl", 2, outcome=noisy))
    fixed = all_of(drive(raced(**learning, seeds=[0, 1]), tmp_path / "two.jsonl", outcome=noisy))
    assert {name: mine[name] for name in fixed} == fixed
    every = drive(raced(seeds=[0, 1, 2, 3, 4]), tmp_path / "five.jsonl", outcome=noisy)
    for group in (group for group in alone.groups.values() if group.kind == "further"):
        assert set(group.asked.keys) < set(every.groups[str(group.asked.extends)].asked.keys)
        assert group.asked.thresholds == {}


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_race_abandoned_anywhere_decides_the_same(tmp_path: Path, alone: SweepScheduler, at_once: int) -> None:
    ledger, made = tmp_path / "ledger.jsonl", dict[str, Outcome]()
    for start in range(60):
        scheduler = drive(raced(), ledger, at_once, order=start, stop_after=2 + start % 3, made=made, outcome=noisy)
        assert all(look in looks_of(alone.history) for look in looks_of(read(scheduler)))
        with ledger.open("a") as file:
            file.write('{"event": "looked", "group": "fraction=1.0 · lo')  # the crash interrupted a write
        if scheduler.history.complete:
            break
    assert scheduler.history.complete
    assert looks_of(scheduler.history) == looks_of(read(scheduler)) == looks_of(alone.history)
    assert all_of(scheduler) == all_of(alone)
    before = ledger.stat().st_size
    drive(raced(), ledger, made=made, outcome=noisy)
    drive(raced(), ledger, made=made, outcome=noisy)
    assert ledger.stat().st_size - before < before, "a run that finds everything writes hardly anything"


def test_a_reader_sees_one_candidate_with_all_its_seeds(alone: SweepScheduler) -> None:
    history = read(alone)
    assert values_of(history) == values_of(alone.history)
    for label, block in history.blocks.items():
        own = alone.history.blocks[label]
        assert [group.number for group in block.best] == [group.number for group in own.best]
    assert history.complete
    assert history.counts() == alone.history.counts()


@pytest.mark.parametrize("lost", ["look 1", "look 2", "candidate 2", "candidate 2 seed 2", "control seed 3"])
def test_a_lost_row_is_recorded_again(tmp_path: Path, alone: SweepScheduler, lost: str) -> None:
    ledger = tmp_path / "ledger.jsonl"
    rows = alone.ledger.path.read_text().splitlines()
    gone = [row for row in rows if f'"group": "fraction=0.25 · {lost}"' in row and '"ended"' not in row]
    assert len(gone) == 1
    ledger.write_text("".join(f"{row}\n" for row in rows if row not in gone))
    made = {name: group.outcome for name, group in alone.history.groups.items() if group.outcome is not None}
    scheduler = drive(raced(), ledger, made=made, outcome=noisy)
    history = read(scheduler)
    assert looks_of(history) == looks_of(alone.history)
    assert values_of(history) == values_of(alone.history)
    assert history.complete


def test_more_candidates_race_again(tmp_path: Path, alone: SweepScheduler) -> None:
    ledger, made = tmp_path / "ledger.jsonl", dict[str, Outcome]()
    drive(raced(candidates=3), ledger, made=made, outcome=noisy)
    grown = drive(raced(), ledger, 2, made=made, outcome=noisy)
    assert looks_of(grown.history) == looks_of(read(grown)) == looks_of(alone.history)
    few = drive(raced(candidates=3), ledger, made=made, outcome=noisy)
    once = drive(raced(candidates=3), tmp_path / "once.jsonl", outcome=noisy)
    assert looks_of(few.history) == looks_of(read(few)) == looks_of(once.history)
    assert all_of(few) == all_of(once)


def test_what_the_ledger_decided_stays_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = dict[str, Outcome]()
    before = drive(raced(), tmp_path / "ledger.jsonl", made=made, outcome=noisy)

    def never(*_: object) -> object:
        raise AssertionError("the statistics are not asked again")

    monkeypatch.setattr("kdtune.sweep.race.look", never)
    again = drive(raced(), tmp_path / "ledger.jsonl", made=made, outcome=noisy)
    assert looks_of(again.history) == looks_of(before.history)


def test_failures_end_a_race_or_drop_a_candidate(tmp_path: Path) -> None:
    def broken(group: TrialGroup) -> Outcome:
        if group.asked.block == "fraction=1.0" and group.asked.role == "control" and group.asked.seeds == (2,):
            return Outcome("failed", error="out of memory")
        if group.asked.block == "fraction=0.25" and group.name.endswith("candidate 2 seed 2"):
            return Outcome("failed", error="the loss is not finite")
        return noisy(group)

    scheduler = drive(raced(), tmp_path / "ledger.jsonl", 4, outcome=broken)
    full, few = (block.race for block in scheduler.history.blocks.values())
    assert full is not None
    assert few is not None
    assert (full.decision, full.looks[-1].reason) == ("failed", "the control has no value with seed 2")
    assert few.looks[1].dropped[2] == "no value with seed 2"
    assert few.decision == "not decided"
    assert scheduler.history.complete
    assert read(scheduler).complete


def test_a_block_without_a_complete_candidate_has_no_race(tmp_path: Path) -> None:
    def none(group: TrialGroup) -> Outcome:
        return Outcome("failed", error="lost") if group.kind == "candidate" else noisy(group)

    scheduler = drive(raced(), tmp_path / "ledger.jsonl", outcome=none)
    assert {look.decision for look in looks_of(scheduler.history)} == {"failed"}
    assert Counter(group.kind for group in scheduler.groups.values())["further"] == 0


def test_refits_come_after_the_race_with_all_seeds_of_the_chosen(tmp_path: Path) -> None:
    form = raced().model_dump(by_alias=True, exclude_unset=True)
    sweep = type(raced()).model_validate({**form, "refit": True})
    scheduler = drive(sweep, tmp_path / "ledger.jsonl", 4, outcome=noisy)
    for label, block in scheduler.history.blocks.items():
        best = block.best[0]
        refit = block.refit(best)
        assert refit is not None
        assert list(refit.seeds) == list(best.values())
        assert set(block.control_values(refit=True)) == set(block.control_values())
        assert label in refit.name
    assert scheduler.history.complete


def answered(group: TrialGroup) -> Outcome:
    """`noisy`, with 60 videos: the figure is their share that is answered rightly."""
    values, texts = [], []
    for i, value in enumerate(noisy(group).values[0]):
        luck = random.Random(f"{group.name} {i}")
        bars = [random.Random(video).random() for video in range(60)]
        texts.append("".join(str(int(bar < value + luck.uniform(-0.05, 0.05))) for bar in bars))
        values.append(texts[-1].count("1") / 60)
    return Outcome("complete", (tuple(values),), {"late": sum(values) / len(values)}, per_video=tuple(texts))


def test_a_readers_gain_is_the_one_that_the_last_look_saw(tmp_path: Path) -> None:
    for outcome in (noisy, answered):
        scheduler = drive(raced(), tmp_path / f"{outcome.__name__}.jsonl", outcome=outcome)
        history = read(scheduler)
        for block in history.blocks.values():
            assert block.race is not None
            for look in block.race.looks:
                for number in look.dropped if look.decision is None else look.candidates:
                    gain = block.gain(block.candidates[number])
                    assert gain is not None
                    assert (gain.mean, gain.low, gain.high) == pytest.approx(look.gains[number], abs=1e-9)
                    assert gain.basis == ("seeds and videos" if outcome is answered else "seeds")
