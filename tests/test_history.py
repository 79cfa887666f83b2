"""The one reading of a sweep: events from records, and what they come to, against figures worked out by hand."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
from fabricated import fabricate, sweep_of, usual_figure

from kdtune.errors import DamageError, StoreError
from kdtune.history.events import Asked, Ended, EpochEnd, EpochRow, Outcome, Refitted, Started
from kdtune.history.front import Front
from kdtune.history.groups import STATES
from kdtune.history.metric import MetricSpec
from kdtune.history.progress import picture, time_left
from kdtune.history.race import Looked
from kdtune.history.reading import HistoryReader, read_history
from kdtune.history.record import SweepRecord
from kdtune.history.rows import epoch_row, ledger_event
from kdtune.history.sweep import SweepHistory
from kdtune.history.trials import sweep_trials
from kdtune.store import StoreFiles
from kdtune.store.files import write_json
from kdtune.store.seal import sealed

KNN = MetricSpec("knn", "validation", "late", "max", "knn")
LOSS = MetricSpec("pretext_loss", "validation", "late", "min", "pretext_loss")
GMAC = MetricSpec("gmac", "validation", "late", "min", "gmac", cost=True)
HERE = Path("ledger.jsonl")


def a_history(*objectives: MetricSpec, **changes: Any) -> SweepHistory:
    """Of two blocks of three candidates; trials of 8 epochs."""
    fields: dict[str, Any] = {
        "name": "s",
        "ledger": "ledger.jsonl",
        "blocks": {"f=1": 3, "f=0.5": 3},
        "stages": {"early": 2, "late": 8},
        "objectives": objectives or (KNN,),
        "epochs": 8,
    }
    return SweepHistory(SweepRecord(**{**fields, **changes}))


def asked(kind: Any, number: int, *seeds: int, keys: str = "k", **fields: Any) -> Asked:
    seeds = seeds or (0,)
    name = f"f=1 · {kind} {number}" + (f" seed {seeds[0]}" if kind == "control" else "")
    named = {"group": name, "kind": kind, "block": "f=1", "number": number, "seeds": seeds, "epochs": 8}
    trials = tuple(f"{keys}-{kind}-{number}-{seed}" for seed in seeds)
    return Asked(**{**named, "keys": trials, "params": ({"teacher": "c3d"},) * len(seeds), **fields})


def complete(group: str, *values: tuple[float, ...], cached: bool = False) -> Ended:
    return Ended(group, Outcome("complete", values), cached)


def pruned(group: str) -> Ended:
    return Ended(group, Outcome("pruned", stage="early"))


# ---- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        asked("candidate", 1, 0, 1, values={"lambda": 0.5, "teacher": "c3d", "n": 3}, thresholds={"early": 0.25}),
        asked("control", 0),
        complete("f=1 · candidate 1", (0.5, 0.25), (3.0, 4.0)),
        Ended("g", Outcome("pruned", stages={"early": 0.1}, stage="early"), cached=True),
        Ended("g", Outcome("failed", error="out of memory")),
        Ended("g", Outcome("complete", ((0.5,),), per_video=("0110",))),
        Looked(
            block="f=1",
            number=2,
            comparisons=3,
            control=(0.5, 0.25, 0.5),
            candidates={0: (0.5, 0.5, 0.25), 2: (0.75, 0.5, 0.5)},
            gains={0: (0.0, -10.5, 10.5), 2: (16.7, None, None)},
            dropped={0: "worse than candidate 2"},
            leader=2,
        ),
    ],
)
def test_an_event_comes_back_from_its_row_as_it_was(event: Asked | Ended | Looked) -> None:
    row = json.loads(json.dumps(event.row()))
    assert ledger_event(row, HERE) == event
    assert ledger_event(row, HERE).row() == event.row()
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.group = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "wrong",
    [
        {"event": "begun"},
        {"kind": "job"},
        {"seeds": []},
        {"seeds": [0, 0]},
        {"keys": ["a"]},
        {"keys": ["a", "../../b"]},
        {"params": [{}]},
        {"params": "c3d"},
        {"finetuned": ["f"]},
        {"number": None},
        {"number": {"a": 1}},
        {"block": None},
        {"thresholds": {"early": float("nan")}},
        {"refits": {"group": "g", "kind": "candidate"}},
    ],
)
def test_a_row_that_is_no_event_is_damage(wrong: dict[str, Any]) -> None:
    row = {**asked("candidate", 1, 0, 1).row(), **wrong}
    with pytest.raises(DamageError, match=r"ledger\.jsonl"):
        ledger_event(row, HERE)


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "running"},
        {"state": "pruned"},
        {"state": "failed"},
        {"values": [[]]},
        {"values": [["high"]]},
        {"values": [[float("inf")]]},
        {"stages": {"early": None}},
        {"cached": "perhaps"},
    ],
)
def test_an_end_that_is_none_is_damage(wrong: dict[str, Any]) -> None:
    with pytest.raises(DamageError):
        ledger_event({**complete("g", (0.5,)).row(), **wrong}, HERE)


def test_a_row_of_an_epoch_needs_its_number_and_its_seconds() -> None:
    row = {"epoch": 2, "seconds": 1.5, "stage": "early", "evaluation": {"validation": {"knn": 0.5}}, "lr": 0.1}
    assert epoch_row(row, HERE) == EpochRow(2, 1.5, stage="early", evaluation={"validation": {"knn": 0.5}})
    for wrong in ({"seconds": None}, {"epoch": "two"}, {"evaluation": {"validation": 0.5}}, {"stage": 3}):
        with pytest.raises(DamageError):
            epoch_row({**row, **wrong}, HERE)


# ---- what a metric is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "title", "gain"),
    [
        (KNN, "k-NN accuracy on validation at late", "+12.5 points"),
        (LOSS, "pretext loss on validation at late", "−0.125 nats"),
        (GMAC, "GMAC", "−0.125 GMAC"),
        (MetricSpec("f1", "test", "finetune", "max", "best_f1"), "best F1 on test at finetune", "+12.5 points"),
        (MetricSpec("clip_ms", "test", "", "min", "clip_ms", True), "clip ms", "−0.125 ms"),
    ],
)
def test_a_metric_says_its_name_its_unit_and_which_way_is_better(metric: MetricSpec, title: str, gain: str) -> None:
    assert metric.title == title
    assert metric.gain_text(metric.gain(0.625, 0.5), unit=True) == gain


def test_only_what_answers_with_one_class_has_a_baseline() -> None:
    of = {name: MetricSpec(name, "test", "late", "max", name).baseline for name in ("knn", "top5", "f1", "retrieval_5")}
    assert of == {"knn": "action_majority", "top5": None, "f1": None, "retrieval_5": None}
    assert (LOSS.baseline, GMAC.baseline) == (None, None)
    assert MetricSpec("pretext", "test", "late", "max", "best_pretext").baseline == "pretext_majority"


# ---- the fold --------------------------------------------------------------------------------------------------------


def test_gains_are_paired_by_seed_and_better_is_positive() -> None:
    history = a_history(LOSS)
    for seed, value in ((0, 1.0), (1, 2.0), (2, 9.0)):
        control = asked("control", 0, seed)
        history.apply(control)
        history.apply(complete(control.group, (value,)) if seed < 2 else pruned(control.group))
    history.apply(candidate := asked("candidate", 0, 1, 0, 2))
    history.apply(complete(candidate.group, (1.5, 0.75, 3.0)))
    gain = history.gains("f=1")[0]
    assert gain.differences == (0.5, 0.25), "seed 1, seed 0; the control of seed 2 has no value"
    assert gain.mean == 0.375
    assert gain.low is not None
    assert gain.low < gain.mean, "an interval, over two seeds"
    (block, _) = picture(history)["blocks"]
    assert (block["best"]["gain"], picture(history)["unit"]) == (0.375, "nats")


@pytest.mark.parametrize("other", ["", "10", "00000000"])
def test_gains_use_the_outcomes_of_each_video_unless_they_contradict_the_values(other: str) -> None:
    """Two seeds on 8 videos: the interval covers seeds and videos. Without these outcomes equal seeds give none."""
    history = a_history()
    for seed, text in enumerate(("10000001", "00000011")):
        history.apply(control := asked("control", 0, seed))
        history.apply(Ended(control.group, Outcome("complete", ((0.25,),), per_video=(text,))))
    texts = ("11000011", other or "01000111")
    history.apply(candidate := asked("candidate", 0, 0, 1))
    history.apply(Ended(candidate.group, Outcome("complete", ((0.5, 0.5),), per_video=texts)))
    gain = history.gains("f=1")[0]
    assert gain.mean == 25
    assert (gain.basis, gain.videos) == ((None, None) if other else ("seeds and videos", 8))


def test_the_best_is_the_search_s_and_the_leader_is_its_best_in_what_gains_are_said_of() -> None:
    history = a_history(GMAC, KNN)
    for number, values in enumerate([(2.0, 0.5), (1.0, 0.25), (3.0, 0.5)]):
        history.apply(group := asked("candidate", number))
        history.apply(complete(group.group, *((value,) for value in values)))
    assert [group.number for group in history.best("f=1")] == [0, 1]
    leader = history.blocks["f=1"].leader
    assert leader is not None
    assert (leader.number, history.metric) == (0, KNN)
    tied = a_history()
    for number in (0, 1, 2):
        tied.apply(group := asked("candidate", number))
        tied.apply(complete(group.group, ((0.25, 0.5, 0.5)[number],)))
    assert [group.number for group in tied.best("f=1")] == [1]


def test_what_is_asked_anew_is_pending_and_so_is_what_followed_from_it() -> None:
    """Its data have changed: the control is another trial, and the search begins anew."""
    history = a_history(refit=True)
    control = asked("control", 0)
    again = Refitted(control.group, "control")
    refit = dataclasses.replace(control, group="f=1 · refit of control", kind="refit", refits=again)
    candidates = [asked("candidate", number) for number in range(3)]
    for group in (control, *candidates, refit):
        history.apply(group)
        history.apply(complete(group.group, (0.5,)))
    before = picture(history)
    for group in (control, *candidates, refit):  # a run that resumes says so again
        history.apply(group)
        history.apply(complete(group.group, (0.5,), cached=True))
    assert picture(history) == before
    assert (history.done, history.total) == (5, 8)
    history.apply(asked("control", 0, keys="new"))
    assert (history.done, history.total, history.groups.keys()) == (0, 7, {control.group})
    assert history.counts() == {state: 7 * (state == "pending") for state in STATES}
    assert history.apply(complete(candidates[0].group, (0.5,))) is None, "it is not asked for"
    history.apply(asked("candidate", 0, keys="new"))
    history.apply(Started(candidates[0].group))
    assert [group.state for group in history.groups.values()] == ["pending", "running"]
    assert history.best("f=1") == []


def test_a_front_of_any_ends_is_the_one_that_all_pairs_give() -> None:
    """Random ends, some withdrawn: the front is what comparing each with each gives."""
    luck = random.Random(1)
    history, ends = a_history(KNN, GMAC, blocks={"f=1": 40}), {}
    for _ in range(200):
        number = luck.randrange(40)
        group = asked("candidate", number)
        history.apply(group)
        values = (luck.randrange(6) / 8, luck.randrange(6) / 8)
        if luck.random() < 0.3:
            history.apply(Started(group.group))
            ends.pop(number, None)
        else:
            history.apply(complete(group.group, *((value,) for value in values)))
            ends[number] = values
        beaten = {
            a
            for a, (share, cost) in ends.items()
            for other, less in ends.values()
            if (other, less) != (share, cost) and other >= share and less <= cost
        }
        assert [group.number for group in history.best("f=1")] == sorted(ends.keys() - beaten)
    assert Front(["max"]).numbers() == []


def test_the_time_left_follows_from_the_pace_and_from_what_waits() -> None:
    history = a_history(blocks={"f=1": 5})
    groups = [asked("candidate", number) for number in range(3)]
    for group in groups:
        history.apply(group)
    assert time_left(history) is None, "nothing to go by"
    for epoch in range(1, 9):
        history.apply(EpochEnd(groups[0].group, groups[0].keys[0], EpochRow(epoch, 2.0)))
    assert time_left(history) == 4 * 8 * 2, "one is at its end; four are to come, one at a time"
    history.apply(complete(groups[0].group, (0.5,)))
    history.apply(Started(groups[1].group))
    history.apply(EpochEnd(groups[2].group, groups[2].keys[0], EpochRow(1, 2.0)))
    assert time_left(history) == (8 + 7 + 2 * 8) * 2 / 2
    history.apply(pruned(groups[1].group))
    assert time_left(history) == (4 + 2 * 5) * 2, "candidates take (8 + 2) / 2 epochs on average"


# ---- from the store --------------------------------------------------------------------------------------------------


def test_it_is_the_same_read_at_once_and_event_by_event(tmp_path: Path) -> None:
    """At every line of the ledger of a whole sweep."""
    store, sweep = StoreFiles(tmp_path), sweep_of()
    fabricate(store, sweep, usual_figure)
    files = store.sweep("s")
    ledger = files.folder / read_history(store, "s").record.ledger
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("")
    reader = HistoryReader(store, "s")
    for count in range(0, len(lines) + 1, 3):
        ledger.write_text("".join(lines[:count])) if count == 0 else _append(ledger, lines[count - 3 : count])
        live, at_once = reader.read(begun=False), HistoryReader(store, "s").read(begun=False)
        assert picture(live) == picture(at_once)
    assert read_history(store, "s").done == live.done


def _append(path: Path, lines: list[str]) -> None:
    with path.open("a") as file:
        file.writelines(lines)


def test_damaged_rows_are_passed_over_with_a_note(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store, sweep = StoreFiles(tmp_path), sweep_of()
    fabricate(store, sweep, usual_figure)
    whole = read_history(store, "s")
    ledger = store.sweep("s").folder / whole.record.ledger
    best = whole.best("fraction=1.0")[0]
    wrong = complete(best.name, (1.0,)).row()
    rows = [wrong, {**wrong, "state": "won"}, {"event": 3, "group": 4}]
    _append(ledger, [f"{sealed(json.dumps(row))}\n" for row in rows])
    found = read_history(store, "s")
    assert picture(found) == picture(whole)
    assert f"an end of {best.name} with another number of trials" in capfd.readouterr().err
    write_json(store.sweep("s").sweep, {**store.sweep_record("s"), "blocks": [1]})
    with pytest.raises(StoreError, match=r"sweep\.json: is damaged: blocks"):
        read_history(store, "s")


def test_a_trial_s_record_is_what_it_came_to_in_this_sweep(tmp_path: Path) -> None:
    store, sweep = StoreFiles(tmp_path), sweep_of()
    fabricate(store, sweep, usual_figure)
    history = read_history(store, "s")
    records = sweep_trials(store, history).trials
    assert len(records) == 2 * (3 + 5 * 3)
    for record in records:
        ended_at = {"complete": 8, "pruned": 2}[record.state]
        assert (record.epochs, record.seconds) == (ended_at, 2.0 * ended_at)
        assert (record.objective is None) == (record.state == "pruned")
        if record.objective is not None:
            assert record.objective == history.metric.value_of(record.stages, record.cost or {})
            assert record.group.values()[record.seed] == record.objective
