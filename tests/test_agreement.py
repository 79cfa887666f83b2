"""How far figures of one trial may differ between machines: bounds against independent computations (DESIGN 4.1)."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from kdtune.config.search import Mode
from kdtune.history.agreement import Answers, Comparison, Spread, answers_bound, seeds_bound, shares_bound
from kdtune.history.metric import MetricSpec
from kdtune.history.replayed import SeedGroups, replayed
from kdtune.store import StoreFiles
from kdtune.store.files import write_json, write_jsonl
from kdtune.train.replay import Difference

KNN = MetricSpec("knn", "validation", "late", "max", "knn")
OTHER_CPU = {"arithmetic": ("aaaa", "bbbb")}


def test_trainings_that_differ_by_seed_alone_leave_the_bound_in_at_most_one_of_twenty() -> None:
    draws = np.random.default_rng(1)
    for groups, seeds in ((1, 5), (1, 8), (4, 2)):
        values = draws.normal(0.5, 0.03, (2_000, groups, seeds))
        again = draws.normal(0.5, 0.03, 2_000)  # the first trial of the first group on another machine
        inside = 0
        for trials, now in zip(values.tolist(), again.tolist(), strict=True):
            spread = Spread.of(trials)
            assert spread is not None
            inside += abs(now - trials[0][0]) <= seeds_bound(spread, 1)
        assert 0.95 <= inside / 2_000 <= 0.975, "neither too narrow, nor so wide that it says nothing"


def test_the_spread_is_that_of_an_analysis_of_variance() -> None:
    groups = [[0.50, 0.54, 0.47, 0.41], [0.61, 0.58], [0.9]]
    within = sum((x - np.mean(group)) ** 2 for group in groups for x in group)
    spread = Spread.of(groups)
    assert spread == Spread(pytest.approx(math.sqrt(within / 4)), 4, 2)
    assert seeds_bound(spread, 4) == pytest.approx(stats.t.ppf(1 - 0.05 / 8, 4) * math.sqrt(2 * within / 4))
    assert Spread.of([[0.5, 0.6, 0.4], [0.7]]) is None, "three trainings say next to nothing of a spread"


@pytest.mark.parametrize(("answers", "figures"), [("2200105503", 1), ("10110110100", 1), ("10110110100", 6)])
def test_the_bound_of_the_videos_is_the_quantile_over_all_signs(answers: str, figures: int) -> None:
    sizes = [int(digit) for digit in answers if digit != "0"]
    sums = [
        abs(sum(sign * size for sign, size in zip(signs, sizes, strict=True)))
        for signs in product((-1, 1), repeat=len(sizes))
    ]
    smallest = min(c for c in range(sum(sizes) + 1) if np.mean([s > c for s in sums]) <= 0.05 / figures)
    was, now = answers, "0" * len(answers)
    for pair in (Answers(was, now, 5), Answers(now, was, 5)):
        got = answers_bound(pair, figures)
        # Sums come in steps of two or more: between two of them, every bound says the same.
        assert {s > got * 5 * len(was) + 1e-9 for s in sums if s > smallest} <= {True}
        assert {s > got * 5 * len(was) + 1e-9 for s in sums if s <= smallest} == {False}


def test_the_bound_of_thousands_of_videos_is_mcnemars() -> None:
    was, now = "01" * 1000 + "1" * 2000, "10" * 1000 + "1" * 2000
    assert answers_bound(Answers(was, now, 1), 1) == pytest.approx(1.96 * math.sqrt(2000) / 4000, rel=0.03)
    # As many videos whose answers are not known one by one differ in more of them.
    assert shares_bound(0.75, 0.75, 4000, 1) == pytest.approx(1.96 * math.sqrt(2 * 0.75 * 0.25 / 4000), rel=0.03)
    assert answers_bound(Answers(was, was, 1), 1) == 0.0


def test_the_larger_bound_decides() -> None:
    assert Comparison(KNN, 0.5, 0.58, 0.1, 0.02).agrees is True
    assert Comparison(KNN, 0.5, 0.38, 0.02, 0.1).agrees is False
    assert (Comparison(KNN, 0.5, 0.5, None, 0.1).basis, Comparison(KNN, 0.5, 0.5, 0.2, 0.1).basis) == (
        "videos",
        "seeds",
    )
    assert Comparison(KNN, 0.5, 0.5).agrees is None


def a_trial(store: StoreFiles, key: str, seed: int, knn: float, lambda_: float = 1.0, **identity: Any) -> None:
    trial = {"seed": seed, "loss": {"target": "pretext", "lambda": lambda_}, "student": {"width": 8}}
    form = {"trial": trial, "data": "d", "teacher": None, "start": None, "semantics": 1, **identity}
    files = store.trial(key)
    write_json(files.config, form)
    write_jsonl(
        files.epochs, [{"epoch": 1, "seconds": 1.0, "stage": "late", "evaluation": {"validation": {"knn": knn}}}]
    )


def test_groups_hold_trials_that_differ_by_their_seed_alone(tmp_path: Path) -> None:
    store = StoreFiles(tmp_path)
    a_trial(store, "aa", 0, 0.50)
    a_trial(store, "ab", 1, 0.54)
    a_trial(store, "ac", 0, 0.60, lambda_=2.0)
    a_trial(store, "ad", 1, 0.62, lambda_=2.0)
    a_trial(store, "ae", 0, 0.90, data="other")
    a_trial(store, "fa", 0, 0.70, start="aa")  # fine-tunings, each of the start of its own seed
    a_trial(store, "fb", 1, 0.72, start="ab")
    a_trial(store, "fc", 0, 0.72, start="ae")
    (store.trial("broken").folder).mkdir()
    store.trial("broken").config.write_text("{")
    groups = SeedGroups(store)
    assert groups.of("ab") == [["aa", "ab"], ["ac", "ad"]]
    assert groups.of("fb") == [["fa", "fb"]]
    assert groups.of("ae") == [["ae"]]
    assert groups.of("nothing") == [[]]
    assert groups.values(KNN, groups.of("aa")) == [[0.50, 0.54], [0.60, 0.62]]


def rows_of(knn: float, answers: str = "", loss: float | None = None) -> Any:
    figures = {"knn": knn, **({} if loss is None else {"pretext_loss": loss})}
    row = {"epoch": 1, "seconds": 1.0, "stage": "late", "evaluation": {"validation": figures}}
    return {**row, "per_video": {"validation": {"knn": answers}}} if answers else row


def difference(was: Any, now: Any, profile: Any = OTHER_CPU, **fields: Any) -> Difference:
    videos = {"validation": 100, "test": 50}
    return Difference(1, "train.loss", 1.0, 1.1, profile, rows=((was, now),), videos=videos, **fields)


def test_the_verdict_names_both_figures_and_the_bound(tmp_path: Path) -> None:
    store = StoreFiles(tmp_path)
    alone = replayed("aa", difference(rows_of(0.50, loss=1.5), rows_of(0.62, loss=9.9)), SeedGroups(store))
    assert alone.verdict == "CONSISTENT"
    text = str(alone)
    assert all(part in text for part in ("0.500", "0.620", "+12.0 points", "±14.8", "videos", "not judged"))
    assert "the bounds rest on the videos" in text
    assert replayed("aa", difference(rows_of(0.50), rows_of(0.70)), SeedGroups(store)).verdict == "INCONSISTENT"
    # The answers of each video narrow the bound: here the two networks disagree on 12 videos, all in one direction.
    answers = "1" * 50 + "0" * 50, "1" * 62 + "0" * 38
    found = replayed("aa", difference(rows_of(0.50, answers[0]), rows_of(0.62, answers[1])), SeedGroups(store))
    assert (found.verdict, found.figures[0].bound) == ("INCONSISTENT", 0.06)
    # Other seeds of the trial, and of others like it, widen it.
    for i, (knn, lambda_) in enumerate([(0.50, 1.0), (0.62, 1.0), (0.41, 1.0), (0.3, 2.0), (0.4, 2.0), (0.5, 2.0)]):
        a_trial(store, f"a{'abcdef'[i]}", i, knn, lambda_)
    found = replayed("aa", difference(rows_of(0.50, answers[0]), rows_of(0.62, answers[1])), SeedGroups(store))
    assert (found.verdict, found.figures[0].basis, found.trainings, found.groups) == ("CONSISTENT", "seeds", 6, 2)
    assert "the spread of 6 trainings in 2 groups" in str(found)


def test_what_no_machine_explains_is_inconsistent_and_one_machine_must_repeat(tmp_path: Path) -> None:
    groups, same = SeedGroups(StoreFiles(tmp_path)), rows_of(0.5)
    assert replayed("aa", difference(same, same, fault="the same"), groups).verdict == "INCONSISTENT"
    assert replayed("aa", difference(same, same, profile={}), groups).verdict == "DIFFERENT"
    assert replayed("aa", Difference(1, "train.loss", 1.0, 1.1, OTHER_CPU), groups).verdict == "DIFFERENT"
    nothing = {"epoch": 1, "seconds": 1.0}
    assert replayed("aa", difference(nothing, nothing), groups).verdict == "DIFFERENT", "no stage was reached"


def test_the_objectives_of_the_sweep_are_compared(tmp_path: Path) -> None:
    def row(**test: float) -> Any:
        return {**rows_of(0.5), "evaluation": {"validation": {"knn": 0.5, "pretext_loss": 1.0}, "test": test}}

    groups, best = SeedGroups(StoreFiles(tmp_path)), MetricSpec("linear", "test", "early", "max", "best_linear")
    modes: list[Mode] = ["max", "min"]
    cost = MetricSpec("gmac", "validation", "late", modes[1], "gmac", cost=True)
    found = replayed("aa", difference(row(best_linear=0.4), row(best_linear=0.5)), groups, [best, cost])
    assert [figure.metric.title for figure in found.figures] == [
        "best linear accuracy on test at late",
        "pretext loss on validation at late",
    ]
    found = replayed("aa", difference(row(), row()), groups, [best])
    assert found.figures[0].metric.title == "k-NN accuracy on validation at late", "the objective is not recorded"
