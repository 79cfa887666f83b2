"""The state of a running sweep, against figures worked out by hand."""

from __future__ import annotations

import random

import pytest
from watched import OBJECTIVE, a_board, asked, ended, epoch

from kdtune.history.front import Front
from kdtune.watch.board import Board


def counts(board: Board, block: int = 0) -> list[int]:
    """complete, pruned, failed, running, pending"""
    row = board.picture()["blocks"][block]
    return [row[state] for state in ("complete", "pruned", "failed", "running", "pending")]


def test_counts_bests_and_gains_are_each_block_s_own() -> None:
    board = a_board(asked("control", 0), asked("control", 0, "f=0.5"))
    assert (board.done, board.total) == (0, 8)
    assert counts(board) == [0, 0, 0, 0, 4]
    for number in range(3):
        board.take(asked("candidate", number))
    board.take(asked("teacher", None, None))
    assert (board.done, board.total) == (0, 9)
    board.take(ended("teacher c3d", "complete"))
    board.epoch("f=1 · control", "f=1 · control/0", epoch(1))
    assert counts(board) == [0, 0, 0, 1, 3]
    board.take(ended("f=1 · candidate 0", "complete", 0.5))
    assert board.picture()["blocks"][0]["best"] == {"candidate": 0, "objective": 0.5, "gain": None}
    board.take(ended("f=1 · control", "complete", 0.375))
    board.take(ended("f=1 · candidate 1", "pruned", stage="early"))
    board.take(ended("f=1 · candidate 2", "failed", error="luck"))
    board.take(asked("candidate", 0, "f=0.5"))
    board.take(ended("f=0.5 · candidate 0", "complete", 0.9))
    first, second = board.picture()["blocks"]
    assert first["best"] == {"candidate": 0, "objective": 0.5, "gain": 0.125}
    assert second["best"] == {"candidate": 0, "objective": 0.9, "gain": None}
    assert counts(board) == [2, 1, 1, 0, 0]
    assert counts(board, 1) == [1, 0, 0, 0, 3]
    teachers = board.picture()["teachers"]
    assert (teachers["complete"], teachers["pending"]) == (1, 0)
    assert (board.done, board.total) == (6, 9)


def test_a_gain_is_over_the_mean_of_the_first_control_s_seeds() -> None:
    board = a_board(
        asked("control", 0, group="a"),
        asked("control", 0, group="b"),
        asked("control", 1, group="c"),
        asked("candidate", 0),
    )
    board.take(ended("f=1 · candidate 0", "complete", 0.6))
    board.take(ended("a", "complete", 0.2))
    board.take(ended("c", "complete", 0.9))
    assert board.picture()["blocks"][0]["best"]["gain"] is None, "not while a seed is missing"
    board.take(ended("b", "complete", 0.4))
    assert board.picture()["blocks"][0]["best"]["gain"] == pytest.approx(0.6 - 0.3)


def test_the_lower_value_is_best_where_the_mode_is_min_and_the_lower_number_wins_a_tie() -> None:
    board = a_board(*(asked("candidate", n) for n in range(3)), objective={**OBJECTIVE, "mode": "min"})
    for number, value in ((2, 0.3), (1, 0.3), (0, 0.4)):
        board.take(ended(f"f=1 · candidate {number}", "complete", value))
    assert board.picture()["blocks"][0]["best"]["candidate"] == 1


def test_several_objectives_have_a_pareto_set() -> None:
    objectives = [OBJECTIVE, {**OBJECTIVE, "metric": "gmac", "column": "gmac", "mode": "min"}]
    board = a_board(*(asked("candidate", n) for n in range(5)), blocks={"f=1": 5}, objective=objectives)
    values = [(0.5, 4.0), (0.4, 1.0), (0.4, 2.0), (0.6, 9.0), (0.5, 4.0)]  # the second beats the third
    for number, value in enumerate(values):
        board.take(ended(f"f=1 · candidate {number}", "complete", value[0], objectives=list(value)))
    assert board.picture()["blocks"][0]["best"] == {"candidates": [0, 1, 3, 4]}
    assert board.picture()["metric"] is None


def test_a_front_is_what_comparing_all_with_all_gives_whatever_comes_and_goes() -> None:
    rng = random.Random(0)
    for modes in (["max"], ["min"], ["max", "min"], ["min", "min", "max"]):
        front, there = Front(modes), {}
        for step in range(150):
            if there and rng.random() < 0.3:
                gone = rng.choice(sorted(there))
                front.remove(gone)
                del there[gone]
            else:
                there[step] = [rng.randrange(5) / 4 for _ in modes]
                front.add(step, there[step])
            better = {
                a: {b for b in there if there[b] != there[a] and no_worse(there[b], there[a], modes)} for a in there
            }
            assert front.numbers() == sorted(a for a in there if not better[a])
        assert all(front.values(number) == there[number] for number in front.numbers())


def no_worse(a: list[float], b: list[float], modes: list[str]) -> bool:
    return all(x >= y if mode == "max" else x <= y for x, y, mode in zip(a, b, modes, strict=True))


def test_ends_that_are_said_again_count_once_and_a_job_may_end_otherwise() -> None:
    end = ended("f=1 · candidate 0", "complete", 0.5)
    board = a_board(asked("candidate", 0), asked("candidate", 1), end, {**end, "cached": True})
    assert counts(board) == [1, 0, 0, 0, 2]
    board.take(ended("f=1 · candidate 1", "failed", error="out of memory"))
    assert counts(board) == [1, 0, 1, 0, 1]
    board.take({"event": "started", "group": "f=1 · candidate 1"})  # retried
    assert (counts(board), board.done) == ([1, 0, 0, 1, 1], 1)
    board.take(ended("f=1 · candidate 1", "complete", 0.75))
    assert (counts(board), board.done) == ([2, 0, 0, 0, 1], 2)
    assert board.picture()["blocks"][0]["best"]["candidate"] == 1
    board.take(asked("candidate", 1, keys=["other"]))  # its data have changed
    assert (counts(board), board.done, board.total) == ([1, 0, 0, 0, 2], 1, 6)
    assert board.picture()["blocks"][0]["best"]["candidate"] == 0


def test_candidates_and_blocks_of_a_run_that_had_more_are_left_out() -> None:
    board = a_board(asked("candidate", 3), asked("control", 0, "f=0.1"))
    assert board.take(ended("f=1 · candidate 3", "complete", 0.9)) is None
    assert (board.done, board.total) == (0, 6)
    assert board.picture()["blocks"][0]["best"] is None


def test_a_running_trial_has_its_epoch_and_its_newest_accuracy() -> None:
    board = a_board(asked("candidate", 0, seeds=2))
    name, first, second = "f=1 · candidate 0", "f=1 · candidate 0/0", "f=1 · candidate 0/1"
    assert board.epoch(name, first, epoch(1)) is None
    assert board.epoch(name, first, epoch(2, stage="early", knn=0.25)) == "early: knn 0.250"
    assert board.epoch(name, first, epoch(2, stage="early", knn=0.25)) is None, "said once"
    board.epoch(name, second, epoch(1))
    running = {"group": name, "trial": f"{name} seed 1", "epoch": 1, "epochs": 8, "stage": "early", "metric": "knn"}
    assert board.picture()["running"] == [{**running, "value": 0.25}]
    assert board.epoch(name, second, epoch(2, stage="early", knn=0.75)) == "early: knn 0.750"
    assert board.picture()["running"] == [{**running, "epoch": 2, "value": 0.5}]
    board.epoch(name, first, epoch(3, knn=0.5))  # an evaluation between stages
    assert board.picture()["running"][0]["stage"] == "epoch 3"
    board.take(ended(name, "pruned", stage="early"))
    assert board.picture()["running"] == []


def test_fine_tuning_s_epochs_are_counted_on_and_its_metric_is_the_objective_s() -> None:
    top1 = {**OBJECTIVE, "metric": "top1", "column": "top1", "stage": "finetune"}
    board = a_board(objective=top1, stages={"late": 8, "finetune": 12})
    board.take(asked("candidate", 0, finetuned=["tuned"]))
    name = "f=1 · candidate 0"
    assert board.epoch(name, f"{name}/0", epoch(8, stage="late", knn=0.5)) == "late: knn 0.500"
    row = epoch(4, stage="finetune", knn=0.5)
    row["evaluation"]["validation"]["top1"] = 0.625
    assert board.epoch(name, "tuned", row) == "finetune: top1 0.625"
    (running,) = board.picture()["running"]
    assert (running["epoch"], running["epochs"], running["metric"]) == (12, 12, "top1")


def test_epochs_are_those_that_the_ledger_says() -> None:
    """The ledger's epochs are those before fine-tuning; a teacher has its own."""
    board = a_board(stages={"late": 8, "finetune": 12}, epochs=8)
    for row in (
        asked("candidate", 0, finetuned=["tuned"], epochs=8),
        asked("candidate", 1, finetuned=["tuned"], epochs=20),  # epochs are searched, too
        asked("teacher", None, None, epochs=30),
        asked("control", 0, "f=0.5"),  # of an earlier version
    ):
        board.take(row)
        board.take({"event": "started", "group": row["group"]})
    assert [row["epochs"] for row in board.picture()["running"]] == [12, 24, 30, 12]


def test_time_left_by_hand() -> None:
    board = a_board(*(asked("candidate", n) for n in range(3)), blocks={"f=1": 5})
    assert board.time_left() is None, "nothing to go by"
    zero, one, two = (f"f=1 · candidate {n}" for n in range(3))
    for number in range(1, 9):
        board.epoch(zero, f"{zero}/0", epoch(number, seconds=2.0))
    # One runs its last epoch; four are to come, of 8 epochs of 2 seconds, one at a time.
    assert board.time_left() == pytest.approx(4 * 8 * 2)
    board.take(ended(zero, "complete", 0.5))
    assert board.time_left() is None, "nothing runs: nobody knows how many will, side by side"
    board.take({"event": "started", "group": one})
    board.epoch(two, f"{two}/0", epoch(1, seconds=2.0))
    # Two in parallel: 8 and 7 epochs of them, and twice 8 to come.
    assert board.time_left() == pytest.approx((8 + 7 + 2 * 8) * 2 / 2)
    board.take(ended(one, "pruned", stage="early"))
    # Candidates now take (8 + 2) / 2 = 5 epochs on average: the running one has 4 left, and two are to come.
    assert board.time_left() == pytest.approx((4 + 2 * 5) * 2)
    for number in range(2, 7):
        board.epoch(two, f"{two}/0", epoch(number, seconds=2.0))
    # Beyond that average it continues to the end.
    assert board.time_left() == pytest.approx((2 + 2 * 5) * 2)


def test_the_last_trial_takes_as_long_as_it_takes() -> None:
    board = a_board(asked("candidate", 0), asked("candidate", 1), blocks={"f=1": 2})
    board.epoch("f=1 · candidate 0", "f=1 · candidate 0/0", epoch(8))
    board.epoch("f=1 · candidate 1", "f=1 · candidate 1/0", epoch(2))
    assert board.time_left() == pytest.approx(6), "not the mean of 0 and 6"


def test_a_block_has_its_own_pace_and_borrows_one_until_then() -> None:
    board = a_board(asked("control", 0), asked("control", 0, "f=0.5"), blocks={"f=1": 0, "f=0.5": 0})
    board.epoch("f=1 · control", "f=1 · control/0", epoch(1, seconds=4.0))
    assert board.time_left() == pytest.approx((7 + 8) * 4)
    board.epoch("f=0.5 · control", "f=0.5 · control/0", epoch(1, seconds=2.0))
    assert board.time_left() == pytest.approx(max(7 * 4, (7 * 4 + 7 * 2) / 2))
