"""Gains over the control, with intervals that are corrected for the number of comparisons.

With probability LEVEL all intervals of one family are right at once (Bonferroni: each of m has level 1 − (1 − LEVEL)/m;
O. J. Dunn, Multiple Comparisons among Means, J. Am. Stat. Assoc. 56, 1961, 52–64). So they also hold for the
candidate that looks best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import Any, Literal

from kdtune.history.metric import MetricSpec
from kdtune.scoped import kept_warnings

LEVEL = 0.95

#: Source of an interval: the spread of the seeds' differences, or the number of evaluated videos.
Basis = Literal["seeds", "videos"]


@dataclass(frozen=True)
class Gain:
    """A difference from the control, signed so that more is better."""

    mean: float
    differences: tuple[float, ...] = ()
    """One per seed: a trial minus the control of the same seed, with the sign of the gain."""
    low: float | None = None
    high: float | None = None
    """The ends of the interval; None if the data give none."""
    basis: Basis | None = None
    seeds: tuple[int, ...] = ()
    """The seed of each difference."""

    @property
    def verdict(self) -> Literal["better", "worse", "not decided"]:
        """The side of 0 on which the whole interval lies; `not decided` if it contains 0 or there is none."""
        if self.low is None or self.high is None:
            return "not decided"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not decided"

    @property
    def says(self) -> str:
        """The verdict in words: `surely better`, `surely worse` or `not decided`."""
        return self.verdict if self.verdict == "not decided" else f"surely {self.verdict}"


def level_of_each(comparisons: int) -> float:
    """Return the level of each of `comparisons` intervals that are all right with probability LEVEL (Bonferroni)."""
    return 1 - (1 - LEVEL) / max(1, comparisons)


def paired_gain(
    metric: MetricSpec,
    values: Mapping[int, float],
    control: Mapping[int, float],
    comparisons: int = 1,
    videos: int | None = None,
) -> Gain | None:
    """Return the gain of `values` over `control`, both seed → value, in `metric.unit`; None if no seed has both.

    Each seed is compared with the control of the same seed. `comparisons` is the number of intervals in the
    family, `videos` the number of evaluated videos, if known.
    """
    seeds = [seed for seed in values if seed in control]
    if not seeds:
        return None
    ours, base = [values[seed] for seed in seeds], [control[seed] for seed in seeds]
    largest = 1.0 if metric.percent else math.inf
    gain = gain_over(ours, base, metric.sign, comparisons, videos if metric.is_share else None, largest)
    low, high = (None if end is None else metric.scaled(end) for end in (gain.low, gain.high))
    differences = tuple(map(metric.scaled, gain.differences))
    return Gain(metric.scaled(gain.mean), differences, low, high, gain.basis, tuple(seeds))


def gain_over(
    values: Sequence[float],
    control: Sequence[float],
    sign: int,
    comparisons: int,
    videos: int | None = None,
    largest: float = math.inf,
) -> Gain:
    """Return the gain of `values` over `control`, which list the same seeds in the same order.

    `sign` is −1 if less is better. `videos` is the number of videos that a share was measured on; it is used only with
    a single seed. Intervals are cut at ±`largest`, the largest possible gain.
    """
    differences = tuple(sign * (value - base) for value, base in zip(values, control, strict=True))
    ends: tuple[float, float] | None = None
    basis: Basis | None = None
    if len(differences) > 1:
        ends, basis = paired_interval(differences, comparisons), "seeds"
    elif videos:
        low, high = shares_interval(values[0], control[0], videos, comparisons)
        ends, basis = ((low, high) if sign > 0 else (-high, -low)), "videos"
    if ends is None:
        return Gain(fmean(differences), differences)
    low, high = max(-largest, ends[0]), min(largest, ends[1])
    return Gain(fmean(differences), differences, low, high, basis)


def paired_interval(differences: Sequence[float], comparisons: int) -> tuple[float, float] | None:
    """Return Student's t interval of the seeds' differences: mean ± t · s/√n with n − 1 degrees of freedom.

    Return None if all differences are equal: figures change in steps of one video, so a few seeds can agree by chance,
    and an interval of width 0 would claim too much.
    """
    spread, n = stdev(differences), len(differences)
    if spread <= 1e-12 * max(map(abs, differences), default=0.0):
        return None
    half = float(_scipy_stats().t.ppf((1 + level_of_each(comparisons)) / 2, n - 1)) * spread / math.sqrt(n)
    return fmean(differences) - half, fmean(differences) + half


def shares_interval(share: float, control: float, videos: int, comparisons: int) -> tuple[float, float]:
    """Return the interval of share − control, as if each share were measured on `videos` videos of its own.

    Both networks mostly fail on the same videos, so the interval is wider than necessary. It holds for one training of
    each: another seed may differ more.

    Newcombe's method 10 (R. G. Newcombe, Statistics in Medicine 17, 1998, 873–890), from Wilson's intervals.
    """
    z = z_value(comparisons)
    low, high = wilson(share, videos, z)
    low_0, high_0 = wilson(control, videos, z)
    difference = share - control
    return (
        difference - math.hypot(share - low, high_0 - control),
        difference + math.hypot(high - share, control - low_0),
    )


@cache
def _scipy_stats() -> Any:
    """Import scipy.stats, which takes a while, without the warning filter that SciPy adds."""
    with kept_warnings():
        from scipy import stats
    return stats


def z_value(comparisons: int) -> float:
    """Return the quantile of the normal distribution for two-sided intervals."""
    return float(_scipy_stats().norm.ppf((1 + level_of_each(comparisons)) / 2))


def wilson(share: float, n: int, z: float) -> tuple[float, float]:
    """Return Wilson's interval of a share of n."""
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


def count_interval(hits: int, n: int) -> tuple[float, float]:
    """Return Clopper and Pearson's interval of the share hits/n at LEVEL, which is never too narrow."""
    found = _scipy_stats().binomtest(hits, n).proportion_ci(LEVEL)
    return float(found.low), float(found.high)
