"""What is known of a sweep while it runs, against figures worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest
from watched import KNN, a_history, asked, ended, epoch, tuned

from kdtune.history.events import Started
from kdtune.history.groups import STATES
from kdtune.history.metric import MetricSpec
from kdtune.history.progress import picture, time_left
from kdtune.history.sweep import SweepHistory


def counts(history: SweepHistory, block: int = 0) -> list[int]:
    """complete, pruned, infeasible, failed, running, pending"""
    row = picture(history)["blocks"][block]
    return [row[state] for state in STATES]


def test_counts_bests_and_gains_are_each_block_s_own() -> None:
    history = a_history(asked("control", 0), asked("control", 0, "f=0.5"))
    assert (history.done, history.total) == (0, 8)
    assert counts(history) == [0, 0, 0, 0, 0, 4]
    for group in (*(asked("candidate", number) for number in range(3)), asked("teacher", None, None)):
        history.apply(group)
    assert (history.done, history.total) == (0, 9)
    history.apply(ended("teacher c3d", "complete", 0.4375))
    history.apply(epoch("f=1 · control", 1))
    assert counts(history) == [0, 0, 0, 0, 1, 3]
    history.apply(ended("f=1 · candidate 0", "complete", 0.5))
    assert picture(history)["blocks"][0]["best"] == {"candidate": 0, "objective": 0.5, "gain": None}
    history.apply(ended("f=1 · control", "complete", 0.375))
    history.apply(ended("f=1 · candidate 1", "pruned", stage="early"))
    history.apply(ended("f=1 · candidate 2", "failed", error="luck"))
    history.apply(asked("candidate", 0, "f=0.5"))
    history.apply(ended("f=0.5 · candidate 0", "complete", 0.9))
    first, second = picture(history)["blocks"]
    assert first["best"] == {"candidate": 0, "objective": 0.5, "gain": 12.5}
    assert second["best"] == {"candidate": 0, "objective": 0.9, "gain": None}
    assert counts(history) == [2, 1, 0, 1, 0, 0]
    assert counts(history, 1) == [1, 0, 0, 0, 0, 3]
    teachers = picture(history)["teachers"]
    assert (teachers["complete"], teachers["pending"], teachers["values"]) == (1, 0, {"c3d": 0.4375})
    assert (history.done, history.total) == (6, 9)


def test_the_lower_value_is_best_where_the_mode_is_min_and_the_lower_number_wins_a_tie() -> None:
    history = a_history(*(asked("candidate", n) for n in range(3)), objectives=(dataclasses.replace(KNN, mode="min"),))
    for number, value in ((2, 0.3), (1, 0.3), (0, 0.4)):
        history.apply(ended(f"f=1 · candidate {number}", "complete", value))
    assert picture(history)["blocks"][0]["best"]["candidate"] == 1


def test_ends_that_are_said_again_count_once_and_a_group_may_end_otherwise() -> None:
    end = ended("f=1 · candidate 0", "complete", 0.5)
    history = a_history(asked("candidate", 0), asked("candidate", 1), end, dataclasses.replace(end, cached=True))
    assert counts(history) == [1, 0, 0, 0, 0, 2]
    history.apply(ended("f=1 · candidate 1", "failed", error="out of memory"))
    assert counts(history) == [1, 0, 0, 1, 0, 1]
    history.apply(Started("f=1 · candidate 1"))  # tried again
    assert (counts(history), history.done) == ([1, 0, 0, 0, 1, 1], 1)
    history.apply(ended("f=1 · candidate 1", "complete", 0.75))
    assert (counts(history), history.done) == ([2, 0, 0, 0, 0, 1], 2)
    assert picture(history)["blocks"][0]["best"]["candidate"] == 1
    history.apply(asked("candidate", 1, keys=("other",)))  # its data have changed
    assert (counts(history), history.done, history.total) == ([1, 0, 0, 0, 0, 2], 1, 6)
    assert picture(history)["blocks"][0]["best"]["candidate"] == 0


def test_candidates_and_blocks_of_a_run_that_had_more_are_left_out() -> None:
    history = a_history(asked("candidate", 3), asked("control", 0, "f=0.1"))
    assert history.apply(ended("f=1 · candidate 3", "complete", 0.9)) is None
    assert (history.done, history.total) == (0, 6)
    assert picture(history)["blocks"][0]["best"] is None


def test_a_running_trial_has_its_epoch_and_its_newest_accuracy() -> None:
    history, name = a_history(asked("candidate", 0, seeds=2)), "f=1 · candidate 0"
    history.apply(epoch(name, 1))
    history.apply(epoch(name, 2, stage="early", knn=0.25))
    history.apply(epoch(name, 1, seed=1))
    running = {"group": name, "trial": f"{name} seed 1", "epoch": 1, "epochs": 8, "stage": "early", "metric": "knn"}
    assert picture(history)["running"] == [{**running, "value": 0.25}]
    history.apply(epoch(name, 2, stage="early", knn=0.75, seed=1))
    assert picture(history)["running"] == [{**running, "epoch": 2, "value": 0.5}]
    history.apply(epoch(name, 3, knn=0.5))  # an evaluation beside the stages
    assert picture(history)["running"][0]["stage"] == "epoch 3"
    history.apply(ended(name, "pruned", stage="early"))
    assert picture(history)["running"] == []


def test_fine_tuning_s_epochs_are_counted_on_and_its_metric_is_the_objective_s() -> None:
    top1 = MetricSpec("top1", "validation", "finetune", "max", "top1")
    history = a_history(objectives=(top1,), stages={"late": 8, "finetune": 12})
    history.apply(asked("candidate", 0, seeds=2, finetuned=("tuned/0", "tuned/1")))
    name = "f=1 · candidate 0"
    history.apply(epoch(name, 8, stage="late", knn=0.5))
    (running,) = picture(history)["running"]
    assert (running["epoch"], running["metric"], running["value"]) == (8, "knn", 0.5)
    history.apply(tuned(name, 4, 0.625))
    (running,) = picture(history)["running"]
    assert (running["epoch"], running["epochs"], running["metric"], running["value"]) == (12, 12, "top1", 0.625)
    history.apply(epoch(name, 8, stage="late", knn=0.25, seed=1))  # the other seed is still before its fine-tuning
    (running,) = picture(history)["running"]
    assert (running["stage"], running["metric"], running["value"]) == ("finetune", "top1", 0.625)
    history.apply(tuned(name, 3, 0.5, seed=1, stage=None))
    (running,) = picture(history)["running"]
    assert (running["stage"], running["metric"], running["value"]) == ("epoch 3", "top1", 0.5)


def test_epochs_are_those_that_the_ledger_says() -> None:
    """Of a trial before its fine-tuning; and a teacher's are its own."""
    history = a_history(stages={"late": 8, "finetune": 12})
    for group in (
        asked("candidate", 0, finetuned=("tuned",)),
        asked("candidate", 1, finetuned=("tuned too",), epochs=20),  # epochs are searched, too
        asked("teacher", None, None, epochs=30),
    ):
        history.apply(group)
        history.apply(Started(group.group))
    assert [row["epochs"] for row in picture(history)["running"]] == [12, 24, 30]


def test_the_last_trial_takes_as_long_as_it_takes() -> None:
    history = a_history(asked("candidate", 0), asked("candidate", 1), blocks={"f=1": 2})
    history.apply(epoch("f=1 · candidate 0", 8))
    history.apply(epoch("f=1 · candidate 1", 2))
    assert time_left(history) == pytest.approx(6), "not the mean of 0 and 6"


def test_a_block_has_its_own_pace_and_borrows_one_until_then() -> None:
    history = a_history(asked("control", 0), asked("control", 0, "f=0.5"), blocks={"f=1": 0, "f=0.5": 0})
    history.apply(epoch("f=1 · control", 1, seconds=4.0))
    assert time_left(history) == pytest.approx((7 + 8) * 4)
    history.apply(epoch("f=0.5 · control", 1, seconds=2.0))
    assert time_left(history) == pytest.approx(max(7 * 4, (7 * 4 + 7 * 2) / 2))
