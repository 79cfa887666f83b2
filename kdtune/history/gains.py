"""How much better than the control, and how surely: intervals of differences, corrected for how many are looked at.

All intervals of one family hold together with probability LEVEL (Bonferroni: each of m has level 1 − (1 − LEVEL)/m;
O. J. Dunn, Multiple Comparisons among Means, J. Am. Stat. Assoc. 56, 1961, 52–64). So they also hold for whichever
looks best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from kdtune.history.metric import MetricSpec

LEVEL = 0.95

#: What an interval is made from: the spread of the seeds' differences, or the number of videos that were asked.
Basis = Literal["seeds", "videos"]


@dataclass(frozen=True)
class Gain:
    """A difference to the control, turned so that more is better."""

    mean: float
    differences: tuple[float, ...] = ()
    """One for each seed: a trial less the control of the same seed."""
    low: float | None = None
    high: float | None = None
    """The interval's ends; None where nothing says how far chance reaches."""
    basis: Basis | None = None
    seeds: tuple[int, ...] = ()
    """The seed of each difference."""

    @property
    def verdict(self) -> Literal["better", "worse", "not decided"]:
        """What the interval decides. Without one nothing is decided."""
        if self.low is None or self.high is None:
            return "not decided"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not decided"


def level_of_each(comparisons: int) -> float:
    """The level of each of so many intervals that hold together with LEVEL (Bonferroni)."""
    return 1 - (1 - LEVEL) / max(1, comparisons)


def paired_gain(
    metric: MetricSpec,
    values: Mapping[int, float],
    control: Mapping[int, float],
    comparisons: int = 1,
    videos: int | None = None,
) -> Gain | None:
    """Return the gain of `values` over `control`, both seed → value, in `metric.unit`; None where no seed has both.

    Each seed is held against the control of the same seed. `comparisons` is how many intervals hold together, `videos`
    how many videos the values are shares of, where that is known.
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
    """`values` and `control` stand by seed; `sign` is −1 where less is better. `videos` is how many were evaluated,
    for a share of them: it is asked where there is one seed alone. No gain can be larger than `largest`: intervals end
    there."""
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
    """Student's t over the seeds' differences: mean ± t · s/√n with n − 1 degrees of freedom.

    None where all differences are the same: as many seeds of figures in steps of one video can agree by chance, and an
    interval of no width would claim what nobody knows.
    """
    from scipy.stats import t

    spread, n = stdev(differences), len(differences)
    if spread <= 1e-12 * max(map(abs, differences), default=0.0):
        return None
    half = float(t.ppf((1 + level_of_each(comparisons)) / 2, n - 1)) * spread / math.sqrt(n)
    return fmean(differences) - half, fmean(differences) + half


def shares_interval(share: float, control: float, videos: int, comparisons: int) -> tuple[float, float]:
    """Of share − control, each of so many videos, as if they were other videos: both networks mostly fail on the same
    ones, which this does not count on, so it is wider than need be. Of one training each: another seed may differ more.

    Newcombe's method 10 (R. G. Newcombe, Statistics in Medicine 17, 1998, 873–890), of Wilson's intervals.
    """
    z = z_value(comparisons)
    low, high = wilson(share, videos, z)
    low_0, high_0 = wilson(control, videos, z)
    difference = share - control
    return (
        difference - math.hypot(share - low, high_0 - control),
        difference + math.hypot(high - share, control - low_0),
    )


def z_value(comparisons: int) -> float:
    """Of the normal distribution, for two-sided intervals."""
    from scipy.stats import norm

    return float(norm.ppf((1 + level_of_each(comparisons)) / 2))


def wilson(share: float, n: int, z: float) -> tuple[float, float]:
    """Wilson's interval of a share of n."""
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


def count_interval(hits: int, n: int) -> tuple[float, float]:
    """Of the share that `hits` of n stand for: Clopper and Pearson's, which is never too narrow."""
    from scipy.stats import binomtest

    found = binomtest(hits, n).proportion_ci(LEVEL)
    return float(found.low), float(found.high)
