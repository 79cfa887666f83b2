"""Prune candidates at stages, by thresholds that are known when a candidate is asked (DESIGN 4.4).

A candidate's peers are the candidates of its block that it may learn from. All of them have ended by then, so its
threshold at each stage is a number that it carries: nothing waits, and the order of arrival does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from kdtune.config.search import Mode, PruneConfig


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
