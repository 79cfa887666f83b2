"""The mean of paired differences when seeds and videos are both samples, with its interval.

Model: d_sv = μ + a_s + b_v + e_sv, where d_sv is the difference of two networks with the same seed s on video v, and
a, b and e are independent with mean 0 and variances A, B and E: the crossed random effects of a two-way layout with one
observation per cell (S. R. Searle, G. Casella, C. E. McCulloch, Variance Components, 1992, ch. 4). μ is the mean over
all seeds and videos that might have been drawn. With S seeds, V videos and the mean squares

    MS_a = V Σ_s (d_s. − d..)² / (S − 1)                           expectation E + V·A
    MS_b = S Σ_v (d_.v − d..)² / (V − 1)                           expectation E + S·B
    MS_e = Σ_sv (d_sv − d_s. − d_.v + d..)² / ((S − 1)(V − 1))     expectation E

the variance A/S + B/V + E/(SV) of the grand mean is the sum of two parts: MS_a/(SV) from the seeds, with S − 1 degrees
of freedom, and (MS_b − MS_e)/(SV) from the videos.

Interval: mean ± q · √(seeds' part + videos' part), where q is the quantile of Behrens and Fisher's distribution: the
weighted sum of a Student t variable for the seeds and a normal one for the videos (R. A. Fisher, Ann. Eugen. 6, 1935,
391–398; it is conservative: G. K. Robinson, Ann. Stat. 4, 1976, 963–971). Satterthwaite's degrees of freedom, the
usual choice, come from the data, and misjudge two seeds that agree by chance (docs/statistics.md).

Legend: ... any leading dimensions, S seeds, V videos.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kdtune.scoped import kept_warnings

with kept_warnings():
    from scipy import special

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Nodes and weights of the trapezoidal rule for the expectation of a function of a standard normal variable, and the
#: square roots of the seeds' shares of the variance for which quantiles are tabulated.
_NODES = np.linspace(-8.0, 8.0, 129)
_WEIGHTS = np.exp(-0.5 * _NODES**2) / np.exp(-0.5 * _NODES**2).sum()
_ROOTS = np.linspace(0.0, 1.0, 65)
#: Quantiles further out are beyond double precision.
SMALLEST_ALPHA = 1e-12


@dataclass(frozen=True)
class CrossedMean:
    """Means of paired differences with the two parts of their variance."""

    mean: Floats
    """[...]"""
    seeds_part: Floats
    """[...] Variance of the mean from the choice of seeds, with df degrees of freedom; NaN where it is unknown."""
    videos_part: Floats
    """[...] Variance of the mean from the choice of videos; 0 for one value per seed."""
    df: Ints
    """[...] Degrees of freedom of `seeds_part`."""
    differing: Ints
    """[...] Number of videos on which the two networks ever differ; 0 for one value per seed."""

    def half(self, alpha: float) -> Floats:
        """Return half the width of the intervals of level 1 − `alpha`; infinite where the data give no interval."""
        if alpha < SMALLEST_ALPHA:
            return np.full(self.mean.shape, math.inf)
        # Few videos that differ tell little of the spread over videos: a t quantile in place of the normal one.
        t = special.stdtrit(np.maximum(self.differing - 1, 1), alpha / 2)
        few = np.where(self.differing > 1, t / special.ndtri(alpha / 2), 1.0)
        total = self.seeds_part + few**2 * self.videos_part
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(total > 0, self.seeds_part / total, 1.0)
        half = quantile(self.df, np.nan_to_num(share, nan=1.0), alpha) * np.sqrt(total)
        return np.where(np.isnan(total), math.inf, half)


def crossed_mean(differences: Floats) -> CrossedMean:
    """Return the means of `differences` [..., S, V]; V is 1 where there is one value per seed and none per video.

    There is no interval (an unknown seeds' part) for one seed, if the networks differ on fewer than two videos, and,
    with one value per seed, if all values are equal. Means over V videos change in steps, so that a few seeds can agree
    by chance: with videos, the variance over seeds is at least that of rounding to steps of 1/V (Sheppard's 1/12).
    """
    seeds, videos = differences.shape[-2:]
    by_seed = differences.mean(-1)
    mean = by_seed.mean(-1)
    size, unknown = mean.shape, np.full(mean.shape, math.nan)
    df = np.full(size, max(1, seeds - 1))
    if seeds < 2:
        return CrossedMean(mean, unknown, np.zeros(size), df, np.zeros(size, dtype=np.int64))
    spread = ((by_seed - mean[..., None]) ** 2).sum(-1) / (seeds - 1)
    if videos < 2:
        known = np.sqrt(spread) > 1e-12 * np.abs(by_seed).max(-1)
        return CrossedMean(mean, np.where(known, spread / seeds, math.nan), np.zeros(size), df, np.zeros(size, int))
    part = videos_part(differences)
    differing = (differences != 0).any(-2).sum(-1)
    spread = np.maximum(spread, 1 / (12 * videos**2))
    return CrossedMean(mean, np.where(differing > 1, spread / seeds, math.nan), part, df, differing)


def videos_part(differences: Floats) -> Floats:
    """Return (MS_b − MS_e)/(SV) of `differences` [..., S, V] for at least two seeds and videos; at least 0."""
    seeds, videos = differences.shape[-2:]
    by_seed, by_video = differences.mean(-1), differences.mean(-2)
    mean = by_seed.mean(-1)
    of_seeds = videos * ((by_seed - mean[..., None]) ** 2).sum(-1)
    of_videos = seeds * ((by_video - mean[..., None]) ** 2).sum(-1)
    total = np.einsum("...sv,...sv->...", differences, differences) - seeds * videos * mean**2
    error = (total - of_seeds - of_videos) / ((seeds - 1) * (videos - 1))
    return np.maximum(0.0, of_videos / (videos - 1) - error) / (seeds * videos)


def quantile(df: Ints, share: Floats, alpha: float) -> Floats:
    """Return q with P(|√share · T + √(1 − share) · Z| > q) = `alpha`, for T of Student's t with `df` degrees of freedom
    and a standard normal Z. Both arguments have the same shape."""
    found = np.empty(share.shape)
    for each in np.unique(df):
        chosen = df == each
        found[chosen] = np.interp(np.sqrt(share[chosen]), _ROOTS, _table(int(each), alpha))
    return found


@lru_cache(maxsize=1024)
def _table(df: int, alpha: float) -> Floats:
    """Return the quantiles for the shares _ROOTS²; linear interpolation between them errs on the wide side.

    Given g = χ²_df, the sum is normal with variance share · df/g + 1 − share: its tail probability is averaged over g.
    """
    chi2 = 2 * special.gammaincinv(df / 2, special.ndtr(_NODES))
    scale = np.sqrt(_ROOTS[:, None] ** 2 * df / chi2 + 1 - _ROOTS[:, None] ** 2)
    low, high = np.zeros(len(_ROOTS)), np.full(len(_ROOTS), -2 * float(special.stdtrit(df, alpha / 2)))
    for _ in range(48):
        middle = (low + high) / 2
        too_small = 2 * special.ndtr(-middle[:, None] / scale) @ _WEIGHTS > alpha
        low, high = np.where(too_small, middle, low), np.where(too_small, high, middle)
    return high
