"""Sweeps with fabricated outcomes, whose truth is known, and the designs that judge them.

An outcome is 1 if the sum of independent normal variables is above a threshold: the video's difficulty, which all
networks share (variance 1), how this network differs on this video, how it does with this seed, and the rest (variance
1). The threshold gives every network exactly its true accuracy over all seeds and videos.

Legend: N sweeps, B blocks, C candidates, S seeds, V videos. The control comes first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from kdtune.history.gains import Family
from kdtune.history.intervals.crossed import crossed_mean
from kdtune.history.intervals.deciding import DECISIONS, decide
from kdtune.history.racing import RaceRules

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """A kind of sweep."""

    name: str
    gains: tuple[float, ...] = (0.0,) * 8
    """True gain of each candidate of each block, in points."""
    blocks: int = 1
    videos: int = 200
    accuracy: float = 0.4
    """True accuracy of the control."""
    seeds_sd: tuple[float, ...] = (2.0,)
    """Spread of a network's accuracy over seeds, in points: one for all networks, or the control's and one for each
    candidate."""
    videos_sd: float = 8.0
    """Spread over videos of what a network has over the others, in points."""
    labels: int = 1
    """Questions per video; a score is the share of right answers. 5 for pretext accuracy."""
    follows: float = 0.0
    """Correlation of the later half of the candidates with the earlier one that looked best: a search that follows
    chance."""
    right: str = "better"
    """The right decision: one of DECISIONS, or `none` where nothing should be found."""
    margin: float | None = None

    @property
    def comparisons(self) -> int:
        return self.blocks * len(self.gains)

    @property
    def networks(self) -> int:
        return self.blocks * (1 + len(self.gains))


def scores(truth: Truth, sweeps: int, seeds: int, rng: np.random.Generator) -> Floats:
    """Return the scores [N·B, 1 + C, S, V] of the sweeps' networks."""
    count = 1 + len(truth.gains)
    # A latent shift of 1 moves an accuracy by about this much (total variance about 2).
    slope = float(np.exp(-(special.ndtri(truth.accuracy) ** 2) / 2) / math.sqrt(2 * math.pi * 2))
    by_seed = np.broadcast_to(np.array(truth.seeds_sd) / 100 / slope, count).astype(np.float32)
    by_video = np.float32(truth.videos_sd / 100 / slope)
    accuracies = truth.accuracy + np.array([0.0, *truth.gains]) / 100
    thresholds = special.ndtri(accuracies) * np.sqrt(2 + by_seed**2 + by_video**2)
    shape = (sweeps, truth.blocks, count)
    a = by_seed[:, None, None] * _normal(rng, *shape, seeds, 1)
    b = by_video * _normal(rng, *shape, 1, truth.videos)
    hard = _normal(rng, sweeps, 1, 1, 1, truth.videos)
    base = thresholds.astype(np.float32)[:, None, None] + hard
    found = np.zeros((*shape, seeds, truth.videos))
    for _ in range(truth.labels):
        e = _normal(rng, *shape, seeds, truth.videos)
        if truth.follows:
            _follow(truth.follows, base, a, b, e)
        found += base + a + b + e > 0
    return found.reshape(-1, *found.shape[2:]) / truth.labels


def _normal(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.standard_normal(shape, dtype=np.float32)


def _follow(share: float, base: NDArray[np.float32], *parts: NDArray[np.float32]) -> None:
    """Make the chance of the later candidates that of the earlier one that looks best with two seeds, in part."""
    half = (parts[0].shape[2] + 1) // 2
    seen = (base + parts[0] + parts[1] + parts[2] > 0)[..., :2, :].mean((-1, -2))
    best = 1 + seen[:, :, 1:half].argmax(-1)
    for part in parts:
        of_best = np.take_along_axis(part, best[:, :, None, None, None], axis=2)
        part[:, :, half:] = share * of_best + math.sqrt(1 - share**2) * part[:, :, half:]


# ---- designs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """The decisions of a design on N·B blocks."""

    better: Bools
    """[N·B, C] Candidates that it calls better than the control."""
    decision: NDArray[np.int64]
    """[N·B] An index of DECISIONS, or −1."""
    trainings: NDArray[np.int64]
    """[N·B]"""


#: Judges the scores of blocks.
Design = Callable[[Truth, Floats], Judged]


def race(rules: RaceRules) -> Design:
    """Return the design that sweeps use: the looks of kdtune/history/racing.py."""

    def judge(truth: Truth, found: Floats) -> Judged:
        rows, candidates = len(found), len(truth.gains)
        racing, open_ = np.ones((rows, candidates), dtype=bool), np.ones(rows, dtype=bool)
        better, decision = np.zeros((rows, candidates), dtype=bool), np.full(rows, -1)
        trainings, before = np.zeros(rows, dtype=np.int64), 0
        margin = None if truth.margin is None else truth.margin / 100
        for look in rules.looks:
            now = np.flatnonzero(open_)
            if not len(now):
                break
            trainings[now] += (1 + racing[now].sum(-1)) * (look - before)
            seen, before = found[now, :, :look], look
            alpha = rules.family(look, truth.comparisons).alpha
            told = decide(seen[:, 1:], seen[:, 0], racing[now], alpha, rules.alpha_drop, margin)
            better[now] = racing[now] & (told.gains.mean - told.half > 0)
            decision[now] = told.decision
            racing[now] &= ~(told.below_control | told.below_leader)
            open_[now] = told.decision < 0
        return Judged(better, decision, trainings)

    return judge


def fixed(seeds: int, confidence: float = 0.95) -> Design:
    """Return the design that trains every candidate with `seeds` seeds, with the same intervals and correction."""

    def judge(truth: Truth, found: Floats) -> Judged:
        seen, alpha = found[:, :, :seeds], Family(truth.comparisons, confidence).alpha
        margin = None if truth.margin is None else truth.margin / 100
        everybody = np.ones((len(found), len(truth.gains)), dtype=bool)
        told = decide(seen[:, 1:], seen[:, 0], everybody, alpha, 1 - confidence, margin)
        return Judged(told.gains.mean - told.half > 0, told.decision, np.full(len(found), seen.shape[1] * seeds))

    return judge


def screened(first: int, seeds: int, confidence: float = 0.95) -> Design:
    """Return the design that chooses each block's best with the first seeds and confirms it with the others alone.

    What the other seeds add is new, so it is corrected for one candidate per block. The videos are those that chose:
    their part of the error is at most the largest of all candidates', whose distribution takes the normal's place.
    """

    def judge(truth: Truth, found: Floats) -> Judged:
        best = found[:, 1:, :first].mean((-1, -2)).argmax(-1)
        at, later = np.arange(len(found)), found[:, :, first:seeds]
        gains = crossed_mean(later[at, 1 + best] - later[:, 0])
        total = gains.seeds_part + gains.videos_part
        share = np.nan_to_num(gains.seeds_part / total, nan=1.0)
        alpha = (1 - confidence) / 2 / truth.blocks
        roots, quantiles = _screened_quantiles(seeds - first - 1, alpha, len(truth.gains))
        better = np.zeros((len(found), len(truth.gains)), dtype=bool)
        better[at, best] = gains.mean - np.interp(np.sqrt(share), roots, quantiles) * np.sqrt(total) > 0
        decision = np.where(better.any(-1), DECISIONS.index("better"), -1)
        return Judged(better, decision, np.full(len(found), found.shape[1] * first + 2 * (seeds - first)))

    return judge


@cache
def _screened_quantiles(df: int, alpha: float, candidates: int) -> tuple[Floats, Floats]:
    """Return roots r and q(r) with P(r·T + √(1 − r²)·M > q) = `alpha`.

    T is of Student's t, Z of the normal distribution, and P(M > x) = candidates · P(Z > x) where that is below 1.
    """
    nodes, roots = np.linspace(-8, 8, 1025), np.linspace(0, 1, 65)
    weights = np.exp(-(nodes**2) / 2) / np.exp(-(nodes**2) / 2).sum()
    largest = np.sqrt(1 - roots[:, None] ** 2) * -special.ndtri(special.ndtr(-nodes) / candidates)
    low, high = np.zeros(len(roots)), np.full(len(roots), 8 - 2 * special.stdtrit(df, alpha))
    for _ in range(48):
        middle = (low + high) / 2
        tail = special.stdtr(df, (largest - middle[:, None]) / np.maximum(roots[:, None], 1e-9)) @ weights
        low, high = np.where(tail > alpha, middle, low), np.where(tail > alpha, high, middle)
    return roots, high


def best_of_n(seeds: int) -> Design:
    """Return the naive design: the best candidate is better if its mean is above the control's."""

    def judge(truth: Truth, found: Floats) -> Judged:
        gains = crossed_mean(found[:, 1:, :seeds] - found[:, :1, :seeds]).mean
        best = gains == gains.max(-1, keepdims=True)
        better = best & (gains > 0)
        decision = np.where(better.any(-1), DECISIONS.index("better"), DECISIONS.index("worse"))
        return Judged(better, decision, np.full(len(found), found.shape[1] * seeds))

    return judge


@dataclass(frozen=True)
class Counts:
    """The right and wrong decisions of a design."""

    sweeps: int
    blocks: int
    false_better: int
    """Sweeps with a candidate that is called better and is not."""
    false_other: int
    """Other sweeps with a wrong decision: all candidates worse, or within the margin, although they are not."""
    right: int
    """Blocks with the right decision."""
    trainings: float
    """Mean per sweep."""


def count(truth: Truth, judged: Judged) -> Counts:
    """Compare a design's decisions with the truth."""
    gains = np.array(truth.gains)
    better = (judged.better & (gains <= 0)).any(-1)
    worse = (judged.decision == DECISIONS.index("worse")) & (gains.max() >= 0)
    outside = truth.margin is None or np.abs(gains).max() > truth.margin
    within = (judged.decision == DECISIONS.index("within margin")) & outside
    other = (worse | within) & ~better
    right = judged.decision == DECISIONS.index(truth.right) if truth.right in DECISIONS else judged.decision < 0
    if truth.right == "better":
        right &= (judged.better & (gains > 0)).any(-1) & ~better
    by_sweep = (-1, truth.blocks)
    false: Bools = np.any(better.reshape(by_sweep), axis=-1)
    other = other.reshape(by_sweep).any(-1) & ~false
    sweeps = len(false)
    return Counts(
        sweeps, len(right), int(false.sum()), int(other.sum()), int(right.sum()), judged.trainings.sum() / sweeps
    )
