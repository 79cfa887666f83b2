"""The decisions of a race's look, for many blocks at once: a sweep asks for one, a simulation for thousands.

Legend: N blocks, C candidates, S seeds, V videos (1 where there is one value per seed). More is better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdtune.history.intervals.crossed import CrossedMean, Floats, crossed_mean, quantile, videos_part

Bools = NDArray[np.bool_]
#: The decisions of a block: an index of these names.
DECISIONS: tuple[Literal["better", "worse", "within margin"], ...] = ("better", "worse", "within margin")
UNDECIDED = -1


@dataclass(frozen=True)
class Decided:
    """The decisions of N looks."""

    gains: CrossedMean
    """[N, C] Differences from the control."""
    half: Floats
    """[N, C] Half the width of their intervals; infinite where there is none."""
    leader: NDArray[np.int64]
    """[N] The best candidate that is better than the control, else the best one."""
    decision: NDArray[np.int64]
    """[N] An index of DECISIONS, or UNDECIDED."""
    below_control: Bools
    """[N, C] Candidates that are dropped because they surely do not beat the control."""
    below_leader: Bools
    """[N, C] Other candidates that are dropped because they surely do not beat the leader."""


def decide(
    scores: Floats, control: Floats, racing: Bools, alpha: float, alpha_drop: float, margin: float | None = None
) -> Decided:
    """Decide N looks from the scores [N, C, S, V] of candidates and [N, S, V] of controls, paired by seed and video.

    `racing` [N, C]: the candidates that are still in the race, at least one in each block. `alpha`: error probability
    of each interval that decides. `alpha_drop`: error probability of each test that drops a candidate. `margin`: gains
    within ±margin count as equal.
    """
    gains = crossed_mean(scores - control[:, None])
    half = gains.half(alpha)
    low, high = gains.mean - half, gains.mean + half
    better: Bools = racing & (low > 0)
    found = np.any(better, axis=-1)
    among = np.where(found[:, None], better, racing)
    leader = np.where(among, gains.mean, -np.inf).argmax(-1)
    decision = np.full(len(leader), UNDECIDED)
    if margin is not None:
        close = (high < margin) | ~racing
        decision[close.all(-1) & (np.take_along_axis(low, leader[:, None], -1)[:, 0] > -margin)] = 2
    decision[((high < 0) | ~racing).all(-1)] = 1
    decision[found] = 0
    below_control, below_leader = _hopeless(scores, control, racing, leader, gains, alpha_drop)
    return Decided(gains, half, leader, decision, below_control, below_leader)


def _hopeless(
    scores: Floats, control: Floats, racing: Bools, leader: NDArray[np.int64], gains: CrossedMean, alpha: float
) -> tuple[Bools, Bools]:
    """Return which candidates are worse than the control, and which of the others are worse than the leader."""
    at = np.arange(len(leader))
    spread, df = _pooled(scores, control, racing)
    others = racing.copy()
    others[at, leader] = False
    behind = scores[at, leader][:, None] - scores
    means = behind.mean((-1, -2))
    parts = videos_part(behind) if behind.shape[-1] > 1 else np.zeros_like(means)
    below_leader = means > _half(spread, parts, df, alpha)
    below_control = -gains.mean > _half(spread, gains.videos_part, df, alpha)
    return others & below_control, others & below_leader & ~below_control


def _half(spread: Floats, parts: Floats, df: NDArray[np.int64], alpha: float) -> Floats:
    total = spread[:, None] + parts
    share = np.where(total > 0, spread[:, None] / np.where(total > 0, total, 1.0), 1.0)
    return quantile(np.broadcast_to(df[:, None], share.shape), share, alpha) * np.sqrt(total)


def _pooled(scores: Floats, control: Floats, racing: Bools) -> tuple[Floats, NDArray[np.int64]]:
    """Return the variance [N] of a difference of two networks' means from the choice of seeds, and its df [N].

    The spread is pooled over the racing candidates and the control: what network and seed leave over in a two-way
    layout of the means over the videos. This takes the networks' spreads as equal, so it must not decide who is better.
    """
    means = np.concatenate([scores.mean(-1), control.mean(-1)[:, None]], axis=1)
    used = np.concatenate([racing, np.ones((len(racing), 1), dtype=bool)], axis=1)[..., None]
    count, seeds = used.sum((1, 2)), means.shape[-1]
    centred = np.where(used, means - means.mean(-1, keepdims=True), 0.0)
    left = np.where(used, centred - centred.sum(1, keepdims=True) / count[:, None, None], 0.0)
    df = (count - 1) * (seeds - 1)
    variance = (left**2).sum((1, 2)) / df
    if scores.shape[-1] > 1:
        variance = np.maximum(variance, 1 / (24 * scores.shape[-1] ** 2))  # as in crossed_mean, for a difference
    return 2 * variance / seeds, df
