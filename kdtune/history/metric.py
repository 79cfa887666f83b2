"""The specification of a metric: direction, unit, baseline, names and the format of its figures."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Literal

from kdtune.config.metrics import column, is_cost, majority_of
from kdtune.config.search import Mode, ObjectiveConfig

Split = Literal["validation", "test"]
#: Shares of the evaluated videos; f1, precision and recall are means over the classes.
SHARES = ("pretext", "knn", "linear", "action", "top1", "top5", "retrieval")
MEANS = ("precision", "recall", "f1")
#: Shares with a majority baseline (always answer the most frequent class): one answer per video.
ONE_ANSWER = ("pretext", "knn", "linear", "action", "top1")
COST_UNITS = {"gmac": "GMAC", "peak_memory": "MiB", "clip_ms": "ms", "epoch_seconds": "s", "parameters": "weights"}
#: Displayed names that differ from the column's.
NAMES = {"knn": "k-NN", "top1": "top-1", "top5": "top-5", "f1": "F1", "gmac": "GMAC"}


@dataclass(frozen=True)
class MetricSpec:
    """A metric of a trial, as an objective names it. Only this class formats its figures.

    A gain is a difference from a base in `unit`, signed so that more is better; for a share the unit is points (0.01).
    """

    metric: str
    """`knn`, `pretext_loss`, `gmac`, … (kdtune/config/metrics.py)."""
    split: Split
    stage: str
    mode: Mode
    column: str
    """The recorded column: the metric, or its best value so far."""
    cost: bool = False
    """Whether the metric is a cost of the trial. A cost has no split, stage or baseline."""

    @classmethod
    def of(cls, objective: ObjectiveConfig, reduce: str) -> MetricSpec:
        """Return the specification of an objective; `reduce` is the trial's `stage.reduce`."""
        cost = is_cost(objective.metric)
        name = objective.metric if cost else column(objective.metric, reduce)
        return cls(objective.metric, objective.split, objective.stage, objective.mode, name, cost)

    def at(self, stage: str | None = None, split: Split | None = None) -> MetricSpec:
        """Return the same metric at another stage or on another split; a cost has neither."""
        return self if self.cost else replace(self, stage=stage or self.stage, split=split or self.split)

    def other(self, accuracy: str, stage: str | None = None) -> MetricSpec:
        """Return another accuracy on the same split, at `stage` or at the same one; a cost's split is validation."""
        return MetricSpec(accuracy, self.split, stage or self.stage, "max", accuracy)

    # ---- direction, unit, baseline -----------------------------------------------------------------------------------

    @property
    def sign(self) -> int:
        """1 if more is better, −1 if less is better."""
        return 1 if self.mode == "max" else -1

    @property
    def base(self) -> str:
        """The column without `best_` and the number of neighbours; for a loss, the column itself."""
        return self.column if self.is_loss else self.column.removeprefix("best_").split("_")[0]

    @property
    def is_loss(self) -> bool:
        return self.column.endswith("_loss")

    @property
    def is_share(self) -> bool:
        """Whether it is a share of the evaluated videos."""
        return not self.cost and self.base in SHARES

    @property
    def percent(self) -> bool:
        """Whether its gains are in points."""
        return self.is_share or (not self.cost and self.base in MEANS)

    @property
    def unit(self) -> str:
        """The unit of a gain: points, nats, GMAC, MiB, ms, s or weights."""
        return "points" if self.percent else COST_UNITS.get(self.column, "nats" if self.is_loss else "")

    @property
    def baseline(self) -> str | None:
        """The column of the majority baseline (always answer the most frequent class); None if the metric has none."""
        return majority_of(self.column) if self.is_share and self.base in ONE_ANSWER else None

    def gain(self, value: float, base: float) -> float:
        """Return how much better `value` is than `base`, in `unit`."""
        return self.scaled(self.sign * (value - base))

    def scaled(self, difference: float) -> float:
        """Return a difference of recorded values in `unit`."""
        return 100 * difference if self.percent else difference

    def value_of(
        self, stages: Mapping[str, Mapping[str, Mapping[str, float]]], cost: Mapping[str, float]
    ) -> float | None:
        """Return the figure of a trial with these `stages` (stage → split → column → value) and `cost`, or None."""
        if self.cost:
            return cost.get(self.column)
        return stages.get(self.stage, {}).get(self.split, {}).get(self.column)

    # ---- names -------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The displayed name, as in `k-NN accuracy`, `pretext loss`, `GMAC`."""
        shown = NAMES.get(self.base, self.column.removeprefix("best_").replace("_", " "))
        shown = f"best {shown}" if self.column.startswith("best_") else shown
        return f"{shown} accuracy" if self.is_share and self.base != "retrieval" else shown

    @property
    def where(self) -> str:
        """Split and stage, as in ` on validation at late`; empty for a cost."""
        return "" if self.cost else f" on {self.split} at {self.stage}"

    @property
    def title(self) -> str:
        """Name, split and stage, as in `k-NN accuracy on validation at late`."""
        return f"{self.name}{self.where}"

    @property
    def axis(self) -> str:
        """The label of a plot's axis: name and unit."""
        if self.cost:
            return f"{self.name} ({self.unit})" if self.unit.lower() != self.name.lower() else self.unit
        return f"{self.name} on {self.split} ({'nats' if self.is_loss else 'share of 1'})"

    @property
    def gain_head(self) -> str:
        """The head of a column of gains, as in `gain (points)`."""
        return f"gain ({self.unit})" if self.unit else "gain"

    # ---- format ------------------------------------------------------------------------------------------------------

    def text(self, value: float | None, spread: float | None = None) -> str:
        """Write a value, as in `0.412` or `0.412 ± 0.010`; empty for None."""
        if value is None:
            return ""
        text = f"{value:.4g}" if self.cost else f"{value:.3f}"
        return text if spread is None else f"{text} ± {self.text(spread)}"

    def mean_text(self, values: Collection[float]) -> str:
        """Write the mean of the seeds' values with their sample standard deviation; empty without values."""
        return self.text(fmean(values), stdev(values) if len(values) > 1 else None) if values else ""

    def gain_text(self, gain: float | None, unit: bool = False) -> str:
        """Write a gain with its sign, as in `+4.2` or `+4.2 points`; empty for None."""
        if gain is None:
            return ""
        text = f"{gain:+.1f}" if self.percent else f"{gain:+.3g}"
        return (text + (f" {self.unit}" if unit and self.unit else "")).replace("-", "−")

    def interval_text(self, low: float | None, high: float | None) -> str:
        """Write an interval of a gain, as in `−1.0 … +9.4`; empty without one."""
        return "" if low is None or high is None else f"{self.gain_text(low)} … {self.gain_text(high)}"

    def threshold_text(self, threshold: float) -> str:
        """Write on which side of a pruning threshold a pruned value lies, as in `below 0.250`."""
        return f"{'below' if self.mode == 'max' else 'above'} {self.text(threshold)}"
