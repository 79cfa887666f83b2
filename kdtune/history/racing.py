"""The statistics of a race: which candidates get further seeds, and whether the block's question is decided.

A race spends seeds where they decide (O. Maron, A. W. Moore, Hoeffding Races, NIPS 6, 1994; M. Birattari et al.,
F-Race, GECCO 2002). It looks at a block's results at fixed numbers of seeds, `RaceRules.looks`. Each candidate is
compared with the control by the interval of intervals/crossed.py: same seeds, same videos, both sources of chance.

Error rate. Each interval of each candidate at each look has its share of the error probability 1 − confidence, and the
shares of the whole sweep sum to it (Bonferroni). So with probability `confidence` every interval of the sweep is right
at every look, whatever is dropped and whenever the race ends: a race can choose neither its moment nor its finalists.

- An anytime-valid sequence would permit a look after every seed. With a few looks, and a spread that 2 to 8 seeds must
  tell, fixed looks give much narrower intervals.
- The looks' shares grow as the cube of the number of seeds (the power family of K. Kim, D. L. DeMets, Biometrika 74,
  1987, 149–154), because few seeds decide little.
- To choose with the first seeds and confirm with the others would need a correction for fewer candidates. But the first
  seeds would be lost to the answer, and the videos, which both steps share, would still need the whole correction. In
  simulations (docs/statistics.md) that finds more where one candidate is good, and less where several are.

A candidate that is dropped wrongly costs power, but makes no other one better. So candidates are dropped by a sharper
test, which pools the seeds' spread over the block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Literal

from kdtune.history.gains import Basis, Family, Gain, VideoScores
from kdtune.history.intervals.shares import z_value
from kdtune.history.metric import MetricSpec

if TYPE_CHECKING:
    from kdtune.history.intervals.crossed import Floats
    from kdtune.history.intervals.deciding import Decided

#: What a race decides: the best candidate is better than the control; all candidates are worse; the best candidate is
#: within ±margin of the control and none is better by more than that; or the last look decides nothing.
RaceDecision = Literal["better", "worse", "within margin", "not decided"]
#: Maximum number of further seeds that is worth naming.
MOST_NEEDED = 100


@dataclass(frozen=True)
class RaceRules:
    """The rules of a race. Raises ValueError if they make no sense."""

    first: int = 2
    """Number of seeds of every candidate before the first look."""
    most: int = 8
    """Number of seeds at the last look."""
    confidence: float = 0.95
    """Probability that all intervals of the sweep are right at all looks."""
    margin: float | None = None
    """Gains within ±margin, in the metric's unit, count as equal; None if every difference matters."""

    def __post_init__(self) -> None:
        if not 2 <= self.first <= self.most:
            raise ValueError(f"2 ≤ first ≤ most must hold, but got first {self.first} and most {self.most}")
        if not 0.5 < self.confidence < 1:
            raise ValueError(f"confidence must be between 0.5 and 1, but got {self.confidence}")
        if self.margin is not None and not self.margin > 0:
            raise ValueError(f"margin must be above 0, but got {self.margin}")

    @cached_property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds at which the race looks: the first, then half as many again (rounded up), up to the most."""
        found = [self.first]
        while found[-1] < self.most:
            found.append(min(self.most, found[-1] + (found[-1] + 1) // 2))
        return tuple(found)

    def look_at(self, seeds: int) -> int | None:
        """Return the newest look, as its number of seeds, that `seeds` seeds suffice for; None before the first."""
        return max((look for look in self.looks if look <= seeds), default=None)

    def share(self, look: int) -> float:
        """Return the share of the error probability that may be spent at the look with `look` seeds."""
        place = self.looks.index(look)
        before = self.looks[place - 1] if place else 0
        return (look**3 - before**3) / self.most**3

    @property
    def alpha_drop(self) -> float:
        """Error probability of each test that drops a candidate. It is not shared out: it only costs power."""
        return 1 - self.confidence

    def family(self, look: int, comparisons: int) -> Family:
        """Return the family of the intervals at the look with `look` seeds.

        `comparisons` is the number of candidates that the whole sweep will have, of all blocks, pruned ones included.
        """
        return Family(comparisons, self.confidence, len(self.looks), self.share(look))


@dataclass(frozen=True)
class Look:
    """The findings of a look."""

    seeds: int
    """Number of seeds that it saw."""
    gains: Mapping[int, Gain]
    """Candidate → gain over the control, with the interval of this look."""
    leader: int
    """The candidate that the block's answer is about: the best one that is better than the control, else the best."""
    dropped: Mapping[int, str]
    """The candidates that get no further seeds although the race continues → why. Empty if the race ends."""
    decision: RaceDecision | None
    """How the race ends; None if the candidates of `left` and their control get further seeds, up to the next look."""

    @property
    def left(self) -> tuple[int, ...]:
        """The candidates that are still in the race, by number."""
        return tuple(sorted(number for number in self.gains if number not in self.dropped))


def look(
    rules: RaceRules,
    metric: MetricSpec,
    candidates: Mapping[int, VideoScores],
    control: VideoScores,
    comparisons: int,
) -> Look:
    """Look at a block's results and decide.

    `candidates` are those that are still in the race: number → seed → score of each video, or a sequence of one value
    per seed, in the metric's own units, where there are no scores. They and the control must have the same seeds, as
    many as one of `rules.looks`; if the numbers of videos differ, only the means are compared. `comparisons` is the
    number of candidates that the whole sweep will have.

    Raises ValueError without candidates or if the seeds are not those of a look.
    """
    import numpy as np  # like SciPy: nobody waits for it who only asks for the rules

    from kdtune.history.intervals.deciding import DECISIONS, UNDECIDED, decide

    numbers, seeds = sorted(candidates), list(control)
    if not numbers or len(seeds) not in rules.looks or any(own.keys() != control.keys() for own in candidates.values()):
        raise ValueError(f"a look needs candidates with the control's seeds, as many as one of {rules.looks}")
    rows = [[own[seed] for seed in seeds] for own in (control, *(candidates[number] for number in numbers))]
    if len({len(one) for row in rows for one in row}) > 1:
        rows = [[[fmean(one)] for one in row] for row in rows]
    scores = metric.sign * np.array(rows, dtype=float)
    family = rules.family(len(seeds), comparisons)
    margin = None if rules.margin is None else rules.margin / metric.scaled(1.0)
    racing = np.ones((1, len(numbers)), dtype=bool)
    found = decide(scores[None, 1:], scores[None, 0], racing, family.alpha, rules.alpha_drop, margin)
    gains = _gains(found, metric, scores, tuple(seeds), family)
    leader, decided = int(found.leader[0]), int(found.decision[0])
    if decided != UNDECIDED or len(seeds) == rules.most:
        decision = DECISIONS[decided] if decided != UNDECIDED else "not decided"
        return Look(len(seeds), dict(zip(numbers, gains, strict=True)), numbers[leader], {}, decision)
    reasons = {
        "worse than the control": found.below_control[0],
        f"worse than candidate {numbers[leader]}": found.below_leader[0],
    }
    dropped = {number: why for why, which in reasons.items() for number, one in zip(numbers, which, strict=True) if one}
    return Look(len(seeds), dict(zip(numbers, gains, strict=True)), numbers[leader], dropped, None)


def _gains(found: Decided, metric: MetricSpec, scores: Floats, seeds: tuple[int, ...], family: Family) -> list[Gain]:
    """Return the candidates' gains in `metric.unit`; `scores` [1 + C, S, V] are signed, the control's first."""
    unit, videos = metric.scaled(1.0), scores.shape[-1]
    means = scores.mean(-1)
    largest = unit if metric.percent else math.inf
    gains = []
    for place, half in enumerate(found.half[0]):
        mean, part = float(found.gains.mean[0, place]), float(found.gains.videos_part[0, place])
        differences = tuple(float(unit * one) for one in means[place + 1] - means[0])
        gain = Gain(unit * mean, differences, seeds=seeds, videos_part=part * unit**2, family=family)
        if math.isfinite(half):
            ends = max(-largest, unit * (mean - half)), min(largest, unit * (mean + half))
            basis: Basis = "seeds and videos" if videos > 1 else "seeds"
            gain = replace(
                gain, low=float(ends[0]), high=float(ends[1]), basis=basis, videos=videos if videos > 1 else None
            )
        gains.append(gain)
    return gains


# ---- planning --------------------------------------------------------------------------------------------------------


def seeds_needed(gain: Gain, rules: RaceRules | None = None) -> int | None:
    """Return about how many more seeds would decide whether there is a gain, if its mean and spread stay as they are.

    Return 0 if it is decided. Return None if 100 more seeds would not decide (the gain is too small for so few videos),
    or if the data do not tell. One seed shows no spread over seeds: its videos' is taken instead, so that the number is
    a guess. `rules` are those of a race: its last look decides.
    """
    if gain.verdict != "not decided":
        return 0
    alpha = gain.family.alpha if rules is None else rules.family(rules.most, gain.comparisons).alpha
    n, videos_part = len(gain.differences), gain.videos_part
    if n > 1:
        per_seed = stdev(gain.differences) ** 2
    elif gain.low is not None and gain.high is not None:
        per_seed, videos_part = ((gain.high - gain.low) / 2 / z_value(gain.family.alpha)) ** 2, 0.0
    else:
        return None
    if per_seed + videos_part <= 0 or _half(n + MOST_NEEDED, per_seed, videos_part, alpha) >= abs(gain.mean):
        return None
    enough = (
        more for more in range(1, MOST_NEEDED + 1) if _half(n + more, per_seed, videos_part, alpha) < abs(gain.mean)
    )
    return next(enough)


def _half(seeds: int, per_seed: float, videos_part: float, alpha: float) -> float:
    """Return half the width of the interval of `seeds` seeds, whose differences have the variance `per_seed`."""
    import numpy as np

    from kdtune.history.intervals.crossed import quantile

    total = per_seed / seeds + videos_part
    share = np.array([per_seed / seeds / total])
    return float(quantile(np.array([seeds - 1]), share, alpha)[0]) * math.sqrt(total)


def fixed_seeds(rules: RaceRules, comparisons: int) -> int:
    """Return how many seeds a sweep with fixed seeds gives every candidate, to have the power of a race by `rules`.

    That is the smallest number whose intervals are no wider than those of the race's last look.
    """
    last = _half(rules.most, 1.0, 0.0, rules.family(rules.most, comparisons).alpha)
    alone = Family(comparisons, rules.confidence).alpha
    return next(seeds for seeds in range(2, rules.most + 1) if _half(seeds, 1.0, 0.0, alone) <= last)


def fixed_trainings(rules: RaceRules, candidates: Sequence[int], controls: int = 1) -> int:
    """Return how many trainings a sweep with fixed seeds takes for the power of a race by `rules`.

    `candidates` is the number of candidates of each block, `controls` that of controls per block.
    """
    return fixed_seeds(rules, sum(candidates)) * sum(count + controls for count in candidates)
