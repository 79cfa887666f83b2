"""Intervals of shares of videos, and of differences of two shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from kdtune.scoped import kept_warnings


def paired_shares_interval(ours: Sequence[float], base: Sequence[float], alpha: float) -> tuple[float, float]:
    """Return the interval of the difference of two shares of the same videos; scores are 0 or 1.

    Newcombe's method 10 (R. G. Newcombe, Statistics in Medicine 17, 1998, 2635–2650): Wilson's intervals of both
    shares, joined with the correlation φ of the outcomes, corrected for continuity where it is positive.
    """
    n, z = len(ours), z_value(alpha)
    both = sum(a > 0 and b > 0 for a, b in zip(ours, base, strict=True))
    first, second = sum(a > 0 for a in ours), sum(b > 0 for b in base)
    covariance: float = n * both - first * second  # ad − bc of the fourfold table
    covariance = max(covariance - n / 2, 0.0) if covariance > 0 else covariance
    margins = first * (n - first) * second * (n - second)
    phi = covariance / math.sqrt(margins) if margins else 0.0
    (low, high), (low_0, high_0) = wilson(first / n, n, z), wilson(second / n, n, z)
    down, up = first / n - low, high - first / n
    down_0, up_0 = second / n - low_0, high_0 - second / n
    difference = (first - second) / n
    return (
        difference - math.sqrt(max(0.0, down**2 - 2 * phi * down * up_0 + up_0**2)),
        difference + math.sqrt(max(0.0, up**2 - 2 * phi * up * down_0 + down_0**2)),
    )


def shares_interval(share: float, control: float, videos: int, alpha: float) -> tuple[float, float]:
    """Return the interval of share − control, as if each share were measured on `videos` videos of its own.

    Both networks mostly fail on the same videos, so the interval is wider than necessary. It holds for one training of
    each: another seed may differ more.

    Newcombe's method 10 (R. G. Newcombe, Statistics in Medicine 17, 1998, 873–890), from Wilson's intervals.
    """
    z = z_value(alpha)
    low, high = wilson(share, videos, z)
    low_0, high_0 = wilson(control, videos, z)
    difference = share - control
    return (
        difference - math.hypot(share - low, high_0 - control),
        difference + math.hypot(high - share, control - low_0),
    )


def z_value(alpha: float) -> float:
    """Return the quantile of the normal distribution for two-sided intervals of level 1 − `alpha`."""
    return -NormalDist().inv_cdf(alpha / 2)


def wilson(share: float, n: int, z: float) -> tuple[float, float]:
    """Return Wilson's interval of a share of n."""
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


def count_interval(hits: int, n: int, level: float) -> tuple[float, float]:
    """Return Clopper and Pearson's interval of the share hits/n, which is never too narrow."""
    with kept_warnings():
        from scipy import stats  # it takes a while
    found = stats.binomtest(hits, n).proportion_ci(level)
    return float(found.low), float(found.high)
