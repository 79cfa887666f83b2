"""Decide which points of a block may be trained: by the sweep's constraints, and by what ran out of memory.

Constraints bind costs that are known before training. Each shape of network is measured once per sweep; the ledger
records its costs and decides from then on, so a resumed sweep draws the same candidates on any machine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kdtune.config.constraints import COUNTED, excesses
from kdtune.config.shape import shape_of
from kdtune.config.space import Scalar
from kdtune.config.sweep import Block, SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.history.events import Costed, Outcome
from kdtune.sweep.ledger import Ledger
from kdtune.train.measuring.before import NetworkCosts
from kdtune.train.prepared import Prepared

#: The excess of a point that ran out of memory has this name.
MEMORY = "memory"


class Costs(Protocol):
    """Measures networks (kdtune.train.measuring.before.NetworkCosts)."""

    def shape(self, config: TrialConfig) -> str:
        """Return a digest that is equal for networks of equal cost."""

    def measure(self, config: TrialConfig, metrics: Collection[str]) -> dict[str, float]:
        """Return the named costs of the trial's network."""


class RecordedCosts:
    """The costs of a sweep's networks, each shape measured once and recorded in the ledger."""

    def __init__(self, costs: Costs, metrics: Sequence[str], ledger: Ledger) -> None:
        self.costs, self.metrics, self.ledger = costs, metrics, ledger

    def of(self, config: TrialConfig) -> Mapping[str, float]:
        """Return metric → value for the trial's network."""
        shape = self.costs.shape(config)
        found = self.ledger.costs.get(shape, {})
        missing = [metric for metric in self.metrics if metric not in found]
        if missing:
            found = {**found, **self.costs.measure(config, missing)}
            self.ledger.costs[shape] = found
            self.ledger.add(Costed(group=f"network {shape}", shape=shape, costs=found))
        return found


def recorded_costs(sweep: SweepConfig, prepared: Prepared, ledger: Ledger) -> RecordedCosts | None:
    """Return the costs that the sweep's search needs before it trains; None if it needs none."""
    metrics = [constraint.metric for constraint in sweep.constraints]
    if sweep.prune.at and len(sweep.objectives) > 1:
        metrics += [objective.metric for objective in sweep.objectives if objective.metric in COUNTED]
    return (
        RecordedCosts(NetworkCosts(prepared, device_of(sweep)), list(dict.fromkeys(metrics)), ledger)
        if metrics
        else None
    )


def device_of(sweep: SweepConfig) -> str:
    """Return the kind of device that trains the sweep, cpu or cuda."""
    return "cuda" if sweep.resources.gpu > 0 else "cpu"


@dataclass(frozen=True)
class Verdict:
    """The decision whether a point may be trained."""

    excess: Mapping[str, float] = field(default_factory=dict)
    """Bound → by what share of it the point exceeds it; at most 0 where it is kept. Optuna's constraints."""
    reason: str = ""
    """Why the point is infeasible, in words; empty for a feasible one."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Costs of the point's network, as far as the search needs them."""


@dataclass(frozen=True)
class Draw:
    """A candidate that the search asks for."""

    values: dict[str, Scalar]
    redrawn: Mapping[str, int]
    """Bound of the constraints → number of earlier draws for this candidate that broke it."""
    verdict: Verdict


class Feasibility:
    """The verdicts of one block."""

    def __init__(self, sweep: SweepConfig, block: Block, costs: RecordedCosts | None) -> None:
        self.sweep, self.block, self.costs = sweep, block, costs
        self._fitted: list[tuple[int, Mapping[str, Scalar]]] = []
        self._ran_out: dict[str, list[int]] = {}
        """Shape of a trial → numbers of the candidates of this shape that ran out of memory."""

    def note(self, number: int, values: Mapping[str, Scalar], outcome: Outcome) -> None:
        """Note how a candidate ended: later candidates of its shape fit into memory, or do not."""
        if outcome.state in ("complete", "pruned"):
            self._fitted.append((number, values))
        elif outcome.state == "infeasible" and not self.judge(values, number).reason:
            self._ran_out.setdefault(self._shape(values), []).append(number)

    def judge(self, values: Mapping[str, Scalar], number: int) -> Verdict:
        """Return the verdict on a point of candidate `number`, from what that candidate may know (DESIGN 4.4)."""
        reasons: list[str] = []
        excess: dict[str, float] = {}
        costs: Mapping[str, float] = {}
        if self.costs is not None:
            costs = self.costs.of(self._config(values))
            excess = excesses(self.sweep.constraints, costs)
            reasons = [words for each in self.sweep.constraints if (words := each.words(costs[each.metric]))]
        told = number - self.sweep.search.window
        if self._ran_out:
            shape = self._shape(values)
            out = [other for other in self._ran_out.get(shape, ()) if other <= told]
            if out and not any(n <= told and self._shape(fitted) == shape for n, fitted in self._fitted):
                excess[MEMORY] = 1.0
                reasons.append(f"candidate {out[0]}, whose trials are as large, ran out of memory")
        return Verdict(excess, "; ".join(reasons), costs)

    def _config(self, values: Mapping[str, Scalar]) -> TrialConfig:
        return self.sweep.build(self.block, values, self.sweep.search.first_seeds[0])

    def _shape(self, values: Mapping[str, Scalar]) -> str:
        return shape_of(self._config(values), device_of(self.sweep))
