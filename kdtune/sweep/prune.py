"""Stage pruning as a threshold that is known when a candidate is asked (DESIGN 4.4).

A candidate's peers are the candidates of its block that it may learn from, all of them finished by then. So the
threshold it has to clear at each stage is a number that travels with it: nothing waits, and arrival order plays no
part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from kdtune.config.search import Mode, PruneConfig


def pruning_threshold(peers: Sequence[float], prune: PruneConfig, mode: Mode) -> float | None:
    """The value a candidate must reach at a stage, given its peers' values there; None where all go on.

    The best `keep` share of the peers and the candidate together goes on: k = ⌈keep · (peers + 1)⌉ places, and the
    candidate has one of them exactly if fewer than k peers are strictly better, that is, if it reaches the k-th best.
    """
    if len(peers) < prune.min_peers:
        return None
    # As a fraction, for 0.28 · 25 is a little more than 7 in binary.
    places = math.ceil(Fraction(str(prune.keep)) * (len(peers) + 1))
    if places > len(peers):
        return None
    return sorted(peers, reverse=mode == "max")[places - 1]


def reaches(value: float, threshold: float | None, mode: Mode) -> bool:
    """Does a candidate with `value` at a stage go on? Ties go on."""
    return threshold is None or (value >= threshold if mode == "max" else value <= threshold)
