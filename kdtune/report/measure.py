"""What a report's figures are called, their units, and how they are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kdtune.config.metrics import is_cost

#: Shares of the evaluated videos; f1, precision and recall are means over the classes.
SHARES = ("pretext", "knn", "linear", "action", "top1", "top5", "retrieval")
MEANS = ("precision", "recall", "f1")
COST_UNITS = {"gmac": "GMAC", "peak_memory": "MiB", "clip_ms": "ms", "epoch_seconds": "s", "parameters": "weights"}
#: Of the short names of parameters, for heads and axes.
SIGNS = {"lambda": "λ", "tau": "τ", "alpha": "α"}


@dataclass(frozen=True)
class Measure:
    """One figure of a trial, as an objective names it."""

    column: str
    split: str
    stage: str
    mode: str
    cost: bool = False

    @classmethod
    def of(cls, objective: dict[str, Any]) -> Measure:
        """Of an objective in a sweep's record."""
        metric = objective["metric"]
        cost = objective.get("cost", is_cost(metric))
        return cls(objective["column"], objective["split"], objective["stage"], objective["mode"], cost)

    @property
    def sign(self) -> int:
        return 1 if self.mode == "max" else -1

    @property
    def base(self) -> str:
        """The metric without what says that it is the best so far, or at how many neighbours."""
        return self.column.removeprefix("best_").split("_")[0] if not self.is_loss else self.column

    @property
    def is_loss(self) -> bool:
        return self.column.endswith("_loss")

    @property
    def is_share(self) -> bool:
        """Is it a share of the evaluated videos?"""
        return not self.cost and self.base in SHARES

    @property
    def percent(self) -> bool:
        """Are differences of it said in points?"""
        return self.is_share or self.base in MEANS

    @property
    def unit(self) -> str:
        """Of a difference."""
        return "points" if self.percent else COST_UNITS.get(self.column, "nats" if self.is_loss else "")

    @property
    def name(self) -> str:
        """As in `knn accuracy`."""
        shown = {"knn": "k-NN", "f1": "F1"}.get(self.base, self.column.removeprefix("best_").replace("_", " "))
        shown = f"best {shown}" if self.column.startswith("best_") else shown
        return f"{shown} accuracy" if self.base in SHARES and self.base != "retrieval" and not self.is_loss else shown

    @property
    def where(self) -> str:
        """As in `on validation at late`; nothing of a cost."""
        return "" if self.cost else f" on {self.split} at {self.stage}"

    @property
    def title(self) -> str:
        return f"{self.name}{self.where}"

    @property
    def axis(self) -> str:
        """For a plot: name and unit."""
        if self.cost:
            return f"{self.name} ({self.unit})" if self.unit.lower() != self.name else self.unit
        return f"{self.name} on {self.split} ({'nats' if self.is_loss else 'share of 1'})"

    def value_of(self, trial: dict[str, Any], stage: str | None = None, split: str | None = None) -> float | None:
        """The figure of a trial of sweep_results, or None where it has none."""
        if self.cost:
            return (trial["cost"] or {}).get(self.column)
        return trial["stages"].get(stage or self.stage, {}).get(split or self.split, {}).get(self.column)

    def text(self, value: float | None) -> str:
        return "" if value is None else f"{value:.4g}" if self.cost else f"{value:.3f}"

    def gain_text(self, gain: float, unit: bool = False) -> str:
        """With its sign, as in `+4.2 points`."""
        text = f"{100 * gain:+.1f}" if self.percent else f"{gain:+.3g}"
        return (text + (f" {self.unit}" if unit and self.unit else "")).replace("-", "−")

    def interval_text(self, low: float | None, high: float | None) -> str:
        """As in `−1.0 … +9.4`; empty where there is none."""
        return "" if low is None or high is None else f"{self.gain_text(low)} … {self.gain_text(high)}"


def label(parameter: str) -> str:
    """Of a parameter: λ, τ and α by their signs, others by their path's last parts."""
    return SIGNS.get(parameter, parameter)
