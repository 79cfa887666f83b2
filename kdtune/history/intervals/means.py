"""Intervals of the mean of paired differences from Student's t: over seeds, or over videos."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import fmean, stdev
from typing import Any

from kdtune.history.intervals.shares import paired_shares_interval
from kdtune.scoped import kept_warnings


def paired_interval(differences: Sequence[float], alpha: float) -> tuple[float, float] | None:
    """Return Student's t interval of the seeds' differences: mean ± t · s/√n with n − 1 degrees of freedom.

    Return None if all differences are equal: figures change in steps of one video, so a few seeds can agree by chance,
    and an interval of width 0 would claim too much.
    """
    spread, n = stdev(differences), len(differences)
    if spread <= 1e-12 * max(map(abs, differences), default=0.0):
        return None
    half = t_value(n - 1, alpha) * spread / math.sqrt(n)
    return fmean(differences) - half, fmean(differences) + half


def videos_interval(ours: Sequence[float], base: Sequence[float], alpha: float) -> tuple[float, float] | None:
    """Return the interval of a difference of two means of scores of the same videos, for one training of each.

    Newcombe's for scores of 0 and 1. Otherwise Student's t over the videos' differences, with one degree of freedom
    less than the number of videos whose scores differ; None if fewer than two do.
    """
    if {*ours, *base} <= {0.0, 1.0}:
        return paired_shares_interval(ours, base, alpha)
    differences = [a - b for a, b in zip(ours, base, strict=True)]
    differing = sum(difference != 0 for difference in differences)
    if differing < 2:
        return None
    half = t_value(differing - 1, alpha) * stdev(differences) / math.sqrt(len(differences))
    return fmean(differences) - half, fmean(differences) + half


def t_value(df: int, alpha: float) -> float:
    """Return the quantile of Student's t for two-sided intervals of level 1 − `alpha`."""
    return -float(_special().stdtrit(df, alpha / 2))


@cache
def _special() -> Any:
    """Import scipy.special, which takes a while, without the warning filter that SciPy adds."""
    with kept_warnings():
        from scipy import special
    return special
