"""The error rate and the power of races, on fabricated outcomes whose truth is known (benchmarks/racing.py)."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from helpers import ROOT

from kdtune.history.racing import RaceRules

RULES = RaceRules()


@pytest.fixture
def truths(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import racing_truths

    return racing_truths


def test_a_race_calls_nothing_better_that_is_not_in_one_sweep_of_twenty_at_most(truths: ModuleType) -> None:
    """400 sweeps of 2 × 4 candidates that equal their controls, 48 videos, unequal spread over the seeds.

    The share of sweeps with a false "better" is at most 1 − confidence, within three standard errors of that bound. The
    same race without the correction for the candidates, and the best of n, err more often than that.
    """
    spread = (2.0, 1.0, 2.0, 4.0, 8.0)
    truth = truths.Truth("no gain", (0.0,) * 4, blocks=2, videos=48, seeds_sd=spread, right="none")
    found = truths.scores(truth, 400, RULES.most, np.random.default_rng(20))
    bound = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)

    def errors(design: object) -> float:
        counts = truths.count(truth, design(truth, found))  # type: ignore[operator]
        return float(counts.false_better + counts.false_other) / 400

    assert errors(truths.race(RULES)) <= bound
    assert errors(truths.race(replace(RULES, confidence=1 - 8 * 0.05))) > bound, "0.05 for each of 8 candidates"
    assert errors(truths.best_of_n(1)) > 0.5


def test_a_race_finds_ten_points_on_200_videos_most_of_the_time_and_trains_less(truths: ModuleType) -> None:
    """60 sweeps of 8 candidates, one of which gains 10 points: found in more than 60 %, with fewer than two thirds of
    the trainings of 8 seeds each."""
    truth = truths.Truth("1 of 8 gains 10 points", (10.0,) + (0.0,) * 7)
    found = truths.scores(truth, 60, RULES.most, np.random.default_rng(4))
    raced = truths.count(truth, truths.race(RULES)(truth, found))
    fixed = truths.count(truth, truths.fixed(8)(truth, found))
    assert raced.right > 0.6 * 60
    assert raced.trainings < fixed.trainings * 2 / 3
    assert raced.right > fixed.right - 0.15 * 60
