"""Bound the difference of a figure between two trainings of one trial on different machines.

Another machine rounds differently, and training amplifies that: after some epochs the replay is another draw, at worst
as if it had another seed. Both trainings are measured on the same videos. A figure's bound is the larger of two:

seeds   t · s · √2, the repeatability limit of ISO 5725-6 (1994, 4.1.4: 2.8 · s for a known spread). s² is the mean
        square within groups of trials that differ by their seed alone, with k − 1 degrees of freedom f for each
        group of k (one-way analysis of variance, so the groups' spreads count as equal), and t is Student's quantile.
        The trial itself belongs to its group, which makes the bound wider than its level asks, never narrower.
videos  Each video that the two answer differently is as likely to favour either (Q. McNemar, Psychometrika 12, 1947,
        153–157), so their difference is a sum of fair signs, whose exact quantile is the bound. Without the answers of
        each video: the normal quantile of two shares' difference with Yates's correction (F. Yates, Suppl. J. R. Stat.
        Soc. 1, 1934, 217–235), z · √(2p(1 − p)/n) + 1/n. Neither contains a difference between seeds.

With probability LEVEL, all bounds of one replay hold at once (Bonferroni, as in gains.py).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any, Literal

from kdtune.history.gains import Family
from kdtune.history.intervals.means import t_value
from kdtune.history.intervals.shares import z_value
from kdtune.history.metric import MetricSpec

#: Degrees of freedom from which a spread over seeds is used, such as those of five seeds. With fewer, Student's
#: quantile is so large that the bound would exclude nothing.
LEAST_FREEDOM = 4


@dataclass(frozen=True)
class Spread:
    """The spread of a metric over trials that differ by their seed alone, pooled over groups of such trials."""

    deviation: float
    """The standard deviation s within the groups."""
    freedom: int
    """Its degrees of freedom: trainings minus groups."""
    groups: int
    """Number of groups with two trainings or more."""

    @classmethod
    def of(cls, groups: Sequence[Sequence[float]]) -> Spread | None:
        """Return the spread within `groups` of values; None if it has fewer than LEAST_FREEDOM degrees of freedom."""
        used = [group for group in groups if len(group) > 1]
        freedom = sum(len(group) - 1 for group in used)
        if freedom < LEAST_FREEDOM:
            return None
        squares = sum(variance(group) * (len(group) - 1) for group in used)
        return cls(math.sqrt(squares / freedom), freedom, len(used))


@dataclass(frozen=True)
class Answers:
    """The answers to the videos of a split, as text: per video, the number of right ones of `scale`, "0" … "9"."""

    was: str
    is_now: str
    scale: int

    def __post_init__(self) -> None:
        if len(self.was) != len(self.is_now) or not (self.was + self.is_now).isdecimal():
            raise ValueError("the answers must be digits, one for each of the same videos")


@dataclass(frozen=True)
class Comparison:
    """A figure of two trainings, and how far apart they may be."""

    metric: MetricSpec
    was: float
    is_now: float
    by_seeds: float | None = None
    by_videos: float | None = None
    """The two bounds of |is now − was|; None where the records give none."""

    @property
    def bound(self) -> float | None:
        """The larger bound; None if there is none."""
        return max((bound for bound in (self.by_seeds, self.by_videos) if bound is not None), default=None)

    @property
    def basis(self) -> Literal["seeds", "videos"] | None:
        """The source of the larger bound; None if there is none."""
        return None if self.bound is None else "seeds" if self.bound == self.by_seeds else "videos"

    @property
    def agrees(self) -> bool | None:
        """Whether the figures differ by no more than the bound; None without one."""
        return None if self.bound is None else abs(self.is_now - self.was) <= self.bound * (1 + 1e-9) + 1e-12


def seeds_bound(spread: Spread, figures: int) -> float:
    """Return the bound of the difference of two trainings whose spread over seeds is `spread`.

    `figures` is the number of bounds that hold at once.
    """
    return t_value(spread.freedom, Family(figures).alpha) * spread.deviation * math.sqrt(2)


def answers_bound(answers: Answers, figures: int) -> float:
    """Return the bound of the difference of two mean scores that the videos answered differently give.

    The smallest c with P(|Σ ±dᵥ| > c) ≤ 1 − level, over independent fair signs of the videos' differences dᵥ, divided
    by the number of answers.
    """
    import numpy as np

    differences = (abs(int(a) - int(b)) for a, b in zip(answers.was, answers.is_now, strict=True))
    sizes = Counter(difference for difference in differences if difference)
    # P(Σ ±dᵥ = 2i − Σ dᵥ) for i = 0, 1, …: `size` more with each plus sign, so binomial in steps of `size`.
    chances = np.ones(1)
    for size, count in sizes.items():
        of_size = np.zeros(size * count + 1)
        of_size[::size] = _binomial(count)
        chances = np.convolve(chances, of_size)
    total, beyond = len(chances) - 1, 0.0
    limit = Family(figures).alpha
    for i in range(total // 2 + 1):  # from the outermost sums, ±total, inwards
        beyond += float(chances[i] + (chances[total - i] if i != total - i else 0.0))
        if beyond > limit:
            return (total - 2 * i) / (answers.scale * len(answers.was))
    return 0.0


def shares_bound(was: float, is_now: float, videos: int, figures: int) -> float:
    """Return the bound of the difference of two shares of as many `videos`, whose answers are not known one by one."""
    p = fmean((was, is_now))
    return z_value(Family(figures).alpha) * math.sqrt(2 * p * (1 - p) / videos) + 1 / videos


def _binomial(count: int) -> Any:
    """Return the probabilities of 0 … `count` heads of a fair coin, as (count + 1,) float64."""
    import numpy as np

    logs = np.array([math.lgamma(i + 1) for i in range(count + 1)])
    return np.exp(logs[-1] - logs - logs[::-1] - count * math.log(2))
