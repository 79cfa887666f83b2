"""Prune candidates at stages, by thresholds that are known when a candidate is asked (DESIGN 4.4).

A candidate's peers are the candidates of its block that it may learn from. All of them have ended by then, so its
threshold at each stage is a number that it carries: nothing waits, and the order of arrival does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from kdtune.config.search import Mode, PruneConfig
from kdtune.history.front import Values, beats


def pruning_threshold(peers: Sequence[float], prune: PruneConfig, mode: Mode) -> float | None:
    """Return the value that a candidate must reach at a stage, given its peers' values there; None if all continue.

    The best `keep` share of the peers and the candidate together continues. That is k = ⌈keep · (peers + 1)⌉ places,
    and the candidate gets one if fewer than k peers are strictly better, that is, if it reaches the k-th best value.
    """
    if len(peers) < prune.min_peers:
        return None
    # An exact fraction, because 0.28 · 25 is slightly more than 7 in floating point.
    places = math.ceil(Fraction(str(prune.keep)) * (len(peers) + 1))
    if places > len(peers):
        return None
    return sorted(peers, reverse=mode == "max")[places - 1]


def reaches(value: float, threshold: float | None, mode: Mode) -> bool:
    """Return whether a candidate with `value` at a stage continues. It does if it ties with the threshold."""
    return threshold is None or (value >= threshold if mode == "max" else value <= threshold)


# ---- several objectives ----------------------------------------------------------------------------------------------


def pruning_front(peers: Sequence[Values], prune: PruneConfig) -> list[Values]:
    """Return the points at a stage none of which may dominate a candidate that continues; empty if all continue.

    `peers` are the peers' points there, in objectives that are known at the stage, signed so that more is better. They
    are divided into fronts by non-dominated sorting (Deb et al. 2002, NSGA-II). With k places (see pruning_threshold),
    a candidate continues if fewer than k peers lie in better fronts than its own. That holds if and only if no point of
    the front that holds the k-th best peer dominates it, because every point of a later front is dominated by one of
    this front. With one objective the front is the threshold.
    """
    places = math.ceil(Fraction(str(prune.keep)) * (len(peers) + 1))
    if len(peers) < prune.min_peers or places > len(peers):
        return []
    rest, passed = list(peers), 0
    while True:
        front = [point for point in rest if not any(beats(other, point) for other in rest)]
        passed += len(front)
        if passed >= places:
            return sorted(set(front))
        rest = [point for point in rest if point not in set(front)]


def dominated(point: Values, front: Sequence[Values]) -> bool:
    """Return whether a point of `front` is at least as good as `point` in every objective and better in one."""
    return any(beats(tuple(other), point) for other in front)
