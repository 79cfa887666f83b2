"""Check the constraints of a sweep."""

from __future__ import annotations

from collections.abc import Iterable

from kdtune.config.constraints import KNOWN_BEFORE
from kdtune.config.sweep import SweepConfig
from kdtune.errors import Problem


def constraint_problems(sweep: SweepConfig) -> Iterable[Problem]:
    """Yield the problems of `constraints`, whose fields are each valid."""
    metrics = [constraint.metric for constraint in sweep.constraints]
    for i, metric in enumerate(metrics):
        place = f"constraints.{i}.metric"
        if metric not in KNOWN_BEFORE:
            yield Problem(place, f"is known only after training, got {metric}", ", ".join(KNOWN_BEFORE))
        if metric in metrics[:i]:
            yield Problem(place, f"has a constraint already: give max and min of {metric} together")
