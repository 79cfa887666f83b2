"""The statistics of a report: against worked and published examples, SciPy's own tests, and simulated sweeps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from kdtune.history.gains import (
    LEVEL,
    count_interval,
    gain_over,
    level_of_each,
    paired_interval,
    shares_interval,
    wilson,
    z_value,
)


def test_a_paired_interval_by_hand() -> None:
    """Mean 2, s = 1, n = 3: Student's t with 2 degrees of freedom leaves 2.5 % above 4.3027."""
    low, high = paired_interval([1.0, 2.0, 3.0], 1) or (0.0, 0.0)
    assert (low, high) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4)


@pytest.mark.parametrize("comparisons", [1, 7, 300])
def test_a_paired_interval_is_scipy_s_of_the_adjusted_level(comparisons: int) -> None:
    values, control = [0.51, 0.44, 0.60, 0.47], [0.47, 0.45, 0.52, 0.41]
    gain = gain_over(values, control, 1, comparisons)
    theirs = stats.ttest_rel(values, control).confidence_interval(1 - 0.05 / comparisons)
    assert (gain.low, gain.high) == pytest.approx((theirs.low, theirs.high))
    assert gain.basis == "seeds"
    assert gain.mean == pytest.approx(0.0425)


def test_more_comparisons_widen_the_interval() -> None:
    differences = [0.02, 0.03, 0.05]
    assert level_of_each(1) == pytest.approx(LEVEL)
    assert level_of_each(10) == pytest.approx(0.995)
    widths = [high - low for m in (1, 2, 10) for low, high in [paired_interval(differences, m) or (0.0, 0.0)]]
    assert widths == sorted(set(widths))


def test_whichever_looks_best_is_called_better_in_one_sweep_of_twenty_at_most() -> None:
    """In sweeps of 6 candidates that equal their control, false verdicts are rarer than 1 − LEVEL.

    The candidates share the control's noise. The share of sweeps with any verdict is at most 1 − LEVEL, within three
    standard errors; uncorrected intervals find something in more sweeps.
    """
    rng = np.random.default_rng(0)
    found = uncorrected = 0
    for _ in range(400):
        control = rng.normal(size=3)
        trials = rng.normal(size=(6, 3))
        gains = [gain_over(list(trial), list(control), 1, 6) for trial in trials]
        found += any(gain.verdict != "not decided" for gain in gains)
        uncorrected += any(gain_over(list(t), list(control), 1, 1).verdict != "not decided" for t in trials)
    assert found / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert uncorrected / 400 > 0.15


@pytest.mark.parametrize(
    ("hits", "others", "n", "low", "high"),
    [(9, 3, 10, 0.1705, 0.8090), (10, 0, 10, 0.6075, 1.0), (0, 0, 10, -0.2775, 0.2775)],
)
def test_a_difference_of_shares_is_newcombe_s(hits: int, others: int, n: int, low: float, high: float) -> None:
    """Two examples of Newcombe's Table II, method 10; the third follows from Wilson's interval of 0 of 10."""
    assert shares_interval(hits / n, others / n, n, 1) == pytest.approx((low, high), abs=2e-4)


def test_wilson_s_interval_is_scipy_s() -> None:
    for hits, n in ((0, 48), (13, 48), (48, 48), (1700, 3783)):
        theirs = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
        assert wilson(hits / n, n, z_value(1)) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_of_the_papers_test_list_one_standard_error_is_less_than_a_point() -> None:
    """REFERENCE: 0.8 points for one share, √2 times as much for a difference; the interval is ± 1.96 of those."""
    low, high = shares_interval(0.45, 0.45, 3783, 1)
    assert (high - low) / 2 / 1.96 / math.sqrt(2) == pytest.approx(0.008, abs=2e-4)


def test_one_seed_is_a_matter_of_videos_and_without_their_number_of_nothing() -> None:
    known = gain_over([0.562], [0.396], 1, 1, videos=48)
    assert known.basis == "videos"
    assert (known.low, known.high) == shares_interval(0.562, 0.396, 48, 1)
    unknown = gain_over([0.9], [0.1], 1, 1)
    assert (unknown.low, unknown.high, unknown.verdict) == (None, None, "not decided")


def test_seeds_that_agree_to_the_last_video_decide_nothing() -> None:
    gain = gain_over([0.50, 0.52], [0.48, 0.50], 1, 1)
    assert (gain.low, gain.verdict) == (None, "not decided")
    assert gain.mean == pytest.approx(0.02)


def test_where_less_is_better_a_gain_is_less() -> None:
    gain = gain_over([1.0, 1.1, 0.9], [1.5, 1.61, 1.42], -1, 1)
    assert gain.mean == pytest.approx(0.51)
    assert gain.verdict == "better"
    assert gain_over([1.5, 1.61, 1.42], [1.0, 1.1, 0.9], -1, 1).verdict == "worse"


def test_no_share_gains_more_than_all_there_is() -> None:
    gain = gain_over([0.5, 0.7], [0.4, 0.4], 1, 24, largest=1.0)
    assert (gain.low, gain.high) == (-1.0, 1.0)


def test_a_count_s_interval_by_hand() -> None:
    """None of three: the upper bound is 1 − 0.025^(1/3) = 0.708."""
    assert count_interval(0, 3) == pytest.approx((0.0, 1 - 0.025 ** (1 / 3)))
    assert count_interval(3, 3) == pytest.approx((0.025 ** (1 / 3), 1.0))
