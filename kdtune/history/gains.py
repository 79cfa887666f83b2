"""Gains over the control, with intervals that are corrected for the number of comparisons.

With probability LEVEL all intervals of one family are right at once (Bonferroni: each of m has level 1 − (1 − LEVEL)/m;
O. J. Dunn, Multiple Comparisons among Means, J. Am. Stat. Assoc. 56, 1961, 52–64). So they also hold for the
candidate that looks best.

    several seeds, outcomes per video    seeds and videos, crossed
    several seeds                        Student's t over the seeds' differences
    one seed, outcomes per video         paired videos: Newcombe's paired shares, or Student's t over the videos
    one seed, a share of known videos    Newcombe's unpaired shares

The intervals themselves are in kdtune/history/intervals/.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Literal

from kdtune.config.metrics import PER_VIDEO, outcomes
from kdtune.history.intervals.means import paired_interval, videos_interval
from kdtune.history.intervals.shares import shares_interval
from kdtune.history.metric import MetricSpec

LEVEL = 0.95

#: The chance that an interval covers: that of the seeds, of the evaluated videos, or of both.
Basis = Literal["seeds", "videos", "seeds and videos"]
Verdict = Literal["better", "worse", "not decided"]
#: Seed → the score in [0, 1] of each evaluated video, in one order for all trials.
VideoScores = Mapping[int, Sequence[float]]


@dataclass(frozen=True)
class Family:
    """Intervals that hold together with probability `level`."""

    comparisons: int = 1
    """Number of candidates that are compared with a control."""
    level: float = LEVEL
    looks: int = 1
    """Number of times that each candidate may be looked at."""
    share: float = 1.0
    """The share of the error probability that this look may spend; the shares of all looks sum to 1."""

    @property
    def alpha(self) -> float:
        """The error probability of each interval: by Bonferroni over comparisons and looks they sum to 1 − level."""
        return (1 - self.level) * self.share / max(1, self.comparisons)


ALONE = Family()


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
    videos: int | None = None
    """Number of videos whose chance the interval covers; None if it covers only the seeds'."""
    paired: bool = True
    """Whether the same video's outcomes were compared; False if only the two shares of all videos were known."""
    videos_part: float = 0.0
    """Variance of the mean from the choice of videos; with one seed, from seed and videos together."""
    family: Family = ALONE
    """The intervals with which this one holds."""

    @property
    def level(self) -> float:
        """The simultaneous level of the family's intervals."""
        return self.family.level

    @property
    def comparisons(self) -> int:
        """Number of comparisons for which the interval is corrected."""
        return self.family.comparisons

    @property
    def looks(self) -> int:
        """Number of looks for which the interval is corrected; 1 unless the sweep races."""
        return self.family.looks

    @property
    def verdict(self) -> Verdict:
        """The side of 0 on which the whole interval lies; `not decided` if it contains 0 or there is none."""
        if self.low is None or self.high is None:
            return "not decided"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not decided"


def paired_gain(
    metric: MetricSpec,
    values: Mapping[int, float],
    control: Mapping[int, float],
    family: Family = ALONE,
    videos: int | None = None,
    scores: VideoScores | None = None,
    control_scores: VideoScores | None = None,
) -> Gain | None:
    """Return the gain of `values` over `control`, both seed → value, in `metric.unit`; None if no seed has both.

    Each seed is compared with the control of the same seed. `videos` is the number of evaluated videos, if known.
    `scores` and `control_scores` are the trials' scores of each video. They are used if they are there for every
    compared seed and have the values as their means.
    """
    seeds = [seed for seed in values if seed in control]
    if not seeds:
        return None
    ours, base = [values[seed] for seed in seeds], [control[seed] for seed in seeds]
    pairs = _pairs(seeds, scores or {}, control_scores or {})
    if pairs is not None and not all(map(_agree, pairs, zip(ours, base, strict=True))):
        pairs = None
    largest = 1.0 if metric.percent else math.inf
    gain = gain_over(ours, base, metric.sign, family, videos if metric.is_share else None, pairs, largest)
    low, high = (None if end is None else metric.scaled(end) for end in (gain.low, gain.high))
    differences = tuple(map(metric.scaled, gain.differences))
    part = gain.videos_part * metric.scaled(1.0) ** 2
    mean = metric.scaled(gain.mean)
    return Gain(mean, differences, low, high, gain.basis, tuple(seeds), gain.videos, gain.paired, part, family)


def video_scores(metric: MetricSpec, texts: Mapping[int, str]) -> VideoScores:
    """Return the scores of each video from seed → text of a row's `per_video`, without texts that `metric` cannot have.

    A metric without outcomes of each video has none.
    """
    found: dict[int, Sequence[float]] = {}
    for seed, text in texts.items() if metric.column in PER_VIDEO else ():
        with suppress(ValueError):  # a damaged row
            found[seed] = outcomes(metric.column, text)
    return found


#: For each seed, the scores of the videos by the trial and by the control.
Pairs = Sequence[tuple[Sequence[float], Sequence[float]]]


def _pairs(seeds: Sequence[int], scores: VideoScores, control: VideoScores) -> Pairs | None:
    """Return the scores of each seed; None unless all seeds have them, of the same number of videos (at least 2)."""
    if not all(seed in scores and seed in control for seed in seeds):
        return None
    pairs = [(scores[seed], control[seed]) for seed in seeds]
    counts = {len(one) for pair in pairs for one in pair}
    return pairs if len(counts) == 1 and min(counts) > 1 else None


def _agree(pair: tuple[Sequence[float], Sequence[float]], values: tuple[float, float]) -> bool:
    """Return whether the scores' means are the values."""
    return all(math.isclose(fmean(one), value, abs_tol=1e-9) for one, value in zip(pair, values, strict=True))


def gain_over(
    values: Sequence[float],
    control: Sequence[float],
    sign: int,
    family: Family = ALONE,
    videos: int | None = None,
    pairs: Pairs | None = None,
    largest: float = math.inf,
) -> Gain:
    """Return the gain of `values` over `control`, which list the same seeds in the same order.

    `sign` is −1 if less is better. `videos` is the number of videos that a share was measured on; it is used only with
    a single seed and without `pairs`, the scores of each video. Intervals are cut at ±`largest`, the largest possible
    gain.
    """
    differences = tuple(sign * (value - base) for value, base in zip(values, control, strict=True))
    ends: tuple[float, float] | None = None
    basis: Basis | None = None
    part, paired = 0.0, pairs is not None
    if pairs is not None:
        videos = len(pairs[0][0])
    if len(differences) > 1:
        if pairs is None:
            ends, basis, videos = paired_interval(differences, family.alpha), "seeds", None
        else:
            (ends, part), basis = _crossed_interval(pairs, sign, family.alpha), "seeds and videos"
    elif pairs is not None:
        ours, base = pairs[0]
        part = variance([a - b for a, b in zip(ours, base, strict=True)]) / len(ours)
        ends, basis = videos_interval(ours, base, family.alpha), "videos"
    elif videos:
        ends, basis = shares_interval(values[0], control[0], videos, family.alpha), "videos"
    if ends is None:
        return Gain(fmean(differences), differences, videos_part=part, family=family)
    low, high = ends if sign > 0 or basis != "videos" else (-ends[1], -ends[0])
    low, high = max(-largest, low), min(largest, high)
    covered = videos if basis != "seeds" else None
    return Gain(fmean(differences), differences, low, high, basis, (), covered, paired, part, family)


def _crossed_interval(pairs: Pairs, sign: int, alpha: float) -> tuple[tuple[float, float] | None, float]:
    """Return the interval over seeds and videos (None if there is none), and the videos' part of the variance."""
    import numpy as np  # like SciPy: nobody who reads a history without gains waits for it

    from kdtune.history.intervals.crossed import crossed_mean

    found = crossed_mean(sign * np.array([np.subtract(ours, base) for ours, base in pairs], dtype=float))
    mean, half = float(found.mean), float(found.half(alpha))
    return ((mean - half, mean + half) if math.isfinite(half) else None), float(found.videos_part)
