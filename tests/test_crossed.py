"""Intervals over seeds and videos: variance components by hand and by plain loops, coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from kdtune.history.intervals.crossed import CrossedMean, crossed_mean, quantile


def test_the_parts_of_the_variance_by_hand() -> None:
    """Two seeds, three videos: MS_a = 3/2, MS_b = 1/6, MS_e = 1/2, so the videos add nothing to the seeds' MS_a/6."""
    found = crossed_mean(np.array([[1.0, 0.0, 1.0], [0.0, 0.0, -1.0]]))
    assert float(found.mean) == pytest.approx(1 / 6)
    assert float(found.seeds_part) == pytest.approx(1.5 / 6)
    assert float(found.videos_part) == 0.0
    assert (int(found.df), int(found.differing)) == (1, 2)


def test_the_parts_of_the_variance_are_those_of_plain_loops() -> None:
    """The mean squares of the two-way layout, summed cell by cell."""
    rng = np.random.default_rng(3)
    d = rng.integers(-1, 2, size=(4, 9)) + np.linspace(-1, 1, 9).round()
    seeds, videos = 4, 9
    mean = sum(d[s, v] for s in range(seeds) for v in range(videos)) / 36
    by_seed, by_video = [sum(d[s]) / 9 for s in range(seeds)], [sum(d[:, v]) / 4 for v in range(videos)]
    ms_a = 9 * sum((m - mean) ** 2 for m in by_seed) / 3
    ms_b = 4 * sum((m - mean) ** 2 for m in by_video) / 8
    cells = [d[s, v] - by_seed[s] - by_video[v] + mean for s in range(seeds) for v in range(videos)]
    ms_e = sum(cell**2 for cell in cells) / 24
    found = crossed_mean(np.stack([d, -2 * d]))  # leading dimensions are apart
    assert ms_b > ms_e
    assert found.seeds_part == pytest.approx([ms_a / 36, 4 * ms_a / 36])
    assert found.videos_part == pytest.approx([(ms_b - ms_e) / 36, 4 * (ms_b - ms_e) / 36])


def test_one_value_per_seed_is_student_s_interval() -> None:
    values = [0.03, 0.05, -0.01, 0.02]
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.999)
    found = crossed_mean(np.array(values)[:, None])
    assert float(found.half(0.001)) == pytest.approx((theirs.high - theirs.low) / 2)


@pytest.mark.parametrize("values", [[[0.1]], [[0.1], [0.1]], [[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]])
def test_no_interval_where_the_data_give_none(values: list[list[float]]) -> None:
    """One seed, equal values of all seeds, no video or a single one that differs."""
    assert math.isinf(float(crossed_mean(np.array(values)).half(0.05)))


def test_seeds_that_agree_by_chance_are_not_sure() -> None:
    """Two seeds with the same share of 48 videos: the spread is at least that of rounding to whole videos."""
    d = np.zeros((2, 48))
    d[0, :20], d[1, 10:30] = 1.0, 1.0
    assert float(crossed_mean(d).half(0.05 / 16)) > 20 / 48


def test_the_quantile_is_that_of_a_sum_of_student_s_t_and_a_normal_variable() -> None:
    """By Monte Carlo, and at both ends exactly."""
    rng = np.random.default_rng(0)
    t, z = rng.standard_t(3, 400_000), rng.normal(size=400_000)
    for share in (0.1, 0.37, 0.8):
        q = float(quantile(np.array([3]), np.array([share]), 0.02)[0])
        beyond = np.mean(np.abs(math.sqrt(share) * t + math.sqrt(1 - share) * z) > q)
        assert beyond == pytest.approx(0.02, abs=4 * math.sqrt(0.02 / 400_000))
    ends = quantile(np.array([3, 3]), np.array([0.0, 1.0]), 1e-4)
    assert ends == pytest.approx([stats.norm.isf(5e-5), stats.t.isf(5e-5, 3)])


@pytest.mark.parametrize(("seeds", "of_seeds", "of_videos"), [(3, 0.0, 0.5), (4, 0.15, 0.3), (8, 0.0, 1.0)])
def test_intervals_cover_the_truth_however_chance_is_divided(seeds: int, of_seeds: float, of_videos: float) -> None:
    """2000 pairs of equal networks, 48 videos, 0/1 outcomes: intervals that miss 0 are no more than the level allows,
    within three standard errors. Intervals from the seeds alone miss it too often where videos matter."""
    rng, n, alpha = np.random.default_rng(seeds), 2000, 0.02

    def outcomes() -> np.ndarray:
        own = of_videos * rng.normal(size=(n, 1, 48)) + of_seeds * rng.normal(size=(n, seeds, 1))
        return hard + own + rng.normal(size=(n, seeds, 48)) > 0.4

    hard = rng.normal(size=(n, 1, 48))
    found = crossed_mean(outcomes().astype(float) - outcomes())
    missed = np.mean(np.abs(found.mean) > found.half(alpha))
    assert missed <= alpha + 3 * math.sqrt(alpha / n)
    if of_videos == 1.0:
        alone = CrossedMean(found.mean, found.seeds_part, 0 * found.videos_part, found.df, found.differing)
        assert np.mean(np.abs(alone.mean) > alone.half(alpha)) > 5 * alpha
