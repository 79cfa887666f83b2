"""The statistics of a report: against worked and published examples, SciPy's own tests, and simulated sweeps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from kdtune.history.gains import ALONE, LEVEL, Family, gain_over, paired_gain
from kdtune.history.intervals.means import paired_interval
from kdtune.history.intervals.shares import count_interval, paired_shares_interval, shares_interval, wilson, z_value
from kdtune.history.metric import MetricSpec

#: Of an interval on its own.
ALPHA = ALONE.alpha


def test_a_paired_interval_by_hand() -> None:
    """Mean 2, s = 1, n = 3: Student's t with 2 degrees of freedom leaves 2.5 % above 4.3027."""
    low, high = paired_interval([1.0, 2.0, 3.0], ALPHA) or (0.0, 0.0)
    assert (low, high) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4)


@pytest.mark.parametrize("comparisons", [1, 7, 300])
def test_a_paired_interval_is_scipy_s_of_the_adjusted_level(comparisons: int) -> None:
    values, control = [0.51, 0.44, 0.60, 0.47], [0.47, 0.45, 0.52, 0.41]
    gain = gain_over(values, control, 1, Family(comparisons))
    theirs = stats.ttest_rel(values, control).confidence_interval(1 - 0.05 / comparisons)
    assert (gain.low, gain.high) == pytest.approx((theirs.low, theirs.high))
    assert gain.basis == "seeds"
    assert gain.mean == pytest.approx(0.0425)


def test_more_comparisons_widen_the_interval() -> None:
    differences = [0.02, 0.03, 0.05]
    assert Family(1).alpha == pytest.approx(1 - LEVEL)
    assert Family(10).alpha == pytest.approx(0.005)
    alphas = [Family(m).alpha for m in (1, 2, 10)]
    widths = [high - low for alpha in alphas for low, high in [paired_interval(differences, alpha) or (0.0, 0.0)]]
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
        gains = [gain_over(list(trial), list(control), 1, Family(6)) for trial in trials]
        found += any(gain.verdict != "not decided" for gain in gains)
        uncorrected += any(gain_over(list(t), list(control), 1).verdict != "not decided" for t in trials)
    assert found / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert uncorrected / 400 > 0.15


@pytest.mark.parametrize(
    ("hits", "others", "n", "low", "high"),
    [(9, 3, 10, 0.1705, 0.8090), (10, 0, 10, 0.6075, 1.0), (0, 0, 10, -0.2775, 0.2775)],
)
def test_a_difference_of_shares_is_newcombe_s(hits: int, others: int, n: int, low: float, high: float) -> None:
    """Two examples of Newcombe's Table II, method 10; the third follows from Wilson's interval of 0 of 10."""
    assert shares_interval(hits / n, others / n, n, ALPHA) == pytest.approx((low, high), abs=2e-4)


def test_wilson_s_interval_is_scipy_s() -> None:
    for hits, n in ((0, 48), (13, 48), (48, 48), (1700, 3783)):
        theirs = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
        assert wilson(hits / n, n, z_value(ALPHA)) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_of_the_papers_test_list_one_standard_error_is_less_than_a_point() -> None:
    """REFERENCE: 0.8 points for one share, √2 times as much for a difference; the interval is ± 1.96 of those."""
    low, high = shares_interval(0.45, 0.45, 3783, ALPHA)
    assert (high - low) / 2 / 1.96 / math.sqrt(2) == pytest.approx(0.008, abs=2e-4)


def test_one_seed_is_a_matter_of_videos_and_without_their_number_of_nothing() -> None:
    known = gain_over([0.562], [0.396], 1, videos=48)
    assert (known.basis, known.videos, known.paired) == ("videos", 48, False)
    assert (known.low, known.high) == shares_interval(0.562, 0.396, 48, ALPHA)
    unknown = gain_over([0.9], [0.1], 1)
    assert (unknown.low, unknown.high, unknown.verdict) == (None, None, "not decided")


def test_seeds_that_agree_to_the_last_video_decide_nothing() -> None:
    gain = gain_over([0.50, 0.52], [0.48, 0.50], 1)
    assert (gain.low, gain.verdict) == (None, "not decided")
    assert gain.mean == pytest.approx(0.02)


def test_where_less_is_better_a_gain_is_less() -> None:
    gain = gain_over([1.0, 1.1, 0.9], [1.5, 1.61, 1.42], -1)
    assert gain.mean == pytest.approx(0.51)
    assert gain.verdict == "better"
    assert gain_over([1.5, 1.61, 1.42], [1.0, 1.1, 0.9], -1).verdict == "worse"


def test_no_share_gains_more_than_all_there_is() -> None:
    gain = gain_over([0.5, 0.7], [0.4, 0.4], 1, Family(24), largest=1.0)
    assert (gain.low, gain.high) == (-1.0, 1.0)


def test_a_count_s_interval_by_hand() -> None:
    """None of three: the upper bound is 1 − 0.025^(1/3) = 0.708."""
    assert count_interval(0, 3, LEVEL) == pytest.approx((0.0, 1 - 0.025 ** (1 / 3)))
    assert count_interval(3, 3, LEVEL) == pytest.approx((0.025 ** (1 / 3), 1.0))


# ---- outcomes per video ----------------------------------------------------------------------------------------------

KNN = MetricSpec("knn", "validation", "late", "max", "knn")


def fourfold(both: int, first: int, second: int, neither: int) -> tuple[list[float], list[float]]:
    """Return the outcomes of two networks with these numbers of videos that both, one or neither answers rightly."""
    ours = [1.0] * (both + first) + [0.0] * (second + neither)
    return ours, [1.0] * both + [0.0] * first + [1.0] * second + [0.0] * neither


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [((36, 12, 2, 0), 0.0569, 0.3404), ((1, 1, 7, 12), -0.507, -0.026)],
)
def test_a_paired_difference_of_shares_is_newcombe_s(table: tuple[int, int, int, int], low: float, high: float) -> None:
    """An example of Newcombe's paper, and one of Fagerland, Lydersen and Laake (Stat. Med. 33, 2014)."""
    assert paired_shares_interval(*fourfold(*table), ALPHA) == pytest.approx((low, high), abs=5e-4)


def test_one_seed_with_outcomes_is_compared_video_by_video() -> None:
    """Networks that mostly fail on the same videos: the paired interval is much narrower, and decides."""
    ours, base = fourfold(20, 12, 1, 40)
    values, control = {0: 32 / 73}, {0: 21 / 73}
    alone = paired_gain(KNN, values, control, videos=73)
    paired = paired_gain(KNN, values, control, videos=73, scores={0: ours}, control_scores={0: base})
    assert alone is not None
    assert paired is not None
    assert (alone.verdict, alone.paired, paired.verdict, paired.paired) == ("not decided", False, "better", True)
    assert (paired.basis, paired.videos) == ("videos", 73)
    assert paired.mean == alone.mean == pytest.approx(100 * 11 / 73)
    assert (paired.low, paired.high) == pytest.approx(tuple(100 * e for e in paired_shares_interval(ours, base, ALPHA)))


def test_scores_in_fifths_have_student_s_interval_over_videos() -> None:
    ours, base = [0.2, 0.4, 1.0, 0.8, 0.6], [0.2, 0.2, 0.4, 0.6, 0.8]
    gain = gain_over([0.6], [0.44], 1, pairs=[(ours, base)])
    theirs = stats.ttest_rel(ours, base)
    half = (theirs.confidence_interval().high - 0.16) / stats.t.ppf(0.975, 4) * stats.t.ppf(0.975, 3)
    assert (gain.low, gain.high) == pytest.approx((0.16 - half, 0.16 + half)), "4 of 5 videos differ"
    assert gain_over([0.6], [0.56], 1, pairs=[(ours, [0.2, 0.4, 1.0, 0.8, 0.4])]).low is None


def test_outcomes_that_some_seeds_lack_or_of_other_videos_are_not_used() -> None:
    values, control = {0: 0.5, 1: 0.75}, {0: 0.25, 1: 0.25}
    ours, base = {0: [1.0, 0, 1, 0], 1: [1.0, 1, 1, 0]}, {0: [0.0, 0, 1, 0], 1: [0.0, 0, 0, 1]}
    whole = paired_gain(KNN, values, control, scores=ours, control_scores=base)
    assert whole is not None
    assert (whole.basis, whole.videos) == ("seeds and videos", 4)
    for scores in ({0: ours[0]}, {**ours, 1: [1.0, 1, 0]}, None):
        gain = paired_gain(KNN, values, control, scores=scores, control_scores=base)
        assert gain is not None
        assert (gain.basis, gain.videos) == ("seeds", None)
