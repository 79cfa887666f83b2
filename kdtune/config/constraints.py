"""Constraints on the costs of a trial's network, which are known before the trial is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field, model_validator

from kdtune.config.fields import Section, broken
from kdtune.config.metrics import Metric, OfCost

#: Costs that are known before a trial is trained.
KNOWN_BEFORE = ("parameters", "gmac", "clip_ms")
#: Those that follow from the configuration and need no measurement.
COUNTED = ("parameters", "gmac")
Bound = Annotated[float, Field(gt=0, le=1e30)]


class ConstraintConfig(Section):
    """A bound on a cost of the candidates' network. Candidates that break it are not trained."""

    metric: OfCost | Metric
    """`parameters`, `gmac` or `clip_ms` (milliseconds for one clip, measured by the machine that runs the sweep)."""
    max: Bound | None = None
    """Largest value allowed."""
    min: Bound | None = None
    """Smallest value allowed."""

    @model_validator(mode="after")
    def _is_a_bound(self) -> ConstraintConfig:
        if self.max is None and self.min is None:
            raise broken("a constraint needs max or min", "neither")
        if self.max is not None and self.min is not None and self.min > self.max:
            raise broken("`min <= max` must hold", f"min {self.min:g} and max {self.max:g}")
        return self

    def __str__(self) -> str:
        """Return the constraint in words, as in `gmac at least 1 and at most 5`."""
        low = [] if self.min is None else [f"at least {_number(self.min)}"]
        high = [] if self.max is None else [f"at most {_number(self.max)}"]
        return f"{self.metric} {' and '.join(low + high)}"

    def excess(self, value: float) -> dict[str, float]:
        """Return bound (as in `gmac max`) → by what share of it `value` lies outside; at most 0 where it is kept."""
        found = {}
        if self.max is not None:
            found[f"{self.metric} max"] = value / self.max - 1
        if self.min is not None:
            found[f"{self.metric} min"] = 1 - value / self.min
        return found

    def words(self, value: float) -> str:
        """Return how `value` breaks the constraint, as in `gmac 6.2 exceeds 5 by 24 %`; empty if it keeps it."""
        if self.max is not None and value > self.max:
            return f"{self.metric} {_number(value)} exceeds {_number(self.max)} by {_percent(value / self.max - 1)}"
        if self.min is not None and value < self.min:
            return f"{self.metric} {_number(value)} is below {_number(self.min)} by {_percent(1 - value / self.min)}"
        return ""


def excesses(constraints: Iterable[ConstraintConfig], costs: Mapping[str, float]) -> dict[str, float]:
    """Return bound → excess (see `ConstraintConfig.excess`) of all constraints."""
    return {name: share for each in constraints for name, share in each.excess(costs[each.metric]).items()}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _percent(share: float) -> str:
    return f"{100 * share:,.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"
