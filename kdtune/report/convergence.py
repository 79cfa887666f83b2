"""Convergence: a metric by epoch, and the first epoch at which a trial matches its control's final value."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from kdtune.history.metric import MetricSpec
from kdtune.history.trials import TrialRecord, epoch_rows
from kdtune.report.standing import Entry, Standing, SweepReport
from kdtune.store import StoreFiles

#: Epoch → value.
Curve = dict[int, float]


@dataclass(frozen=True)
class Reach:
    """When an entry reached its control's final value."""

    entry: Entry
    epochs: list[int]
    """For each seed that reached it, the first evaluated epoch with at least that value."""
    seeds: int
    """Number of seeds that could be compared."""
    full: int
    """Epochs of the control."""

    @property
    def mean(self) -> float | None:
        return fmean(self.epochs) if self.epochs else None

    @property
    def saved(self) -> float | None:
        """The share of the control's epochs that were not needed; None unless every seed reached it."""
        return 1 - fmean(self.epochs) / self.full if self.epochs and len(self.epochs) == self.seeds else None


def curve_metric(sweep: SweepReport, store: StoreFiles) -> MetricSpec:
    """Return the report's metric if pre-training records it, else k-NN, which is always recorded."""
    evaluated = next((trial for trial in sweep.trials if trial.stages), None)
    if sweep.metric.cost or (evaluated is not None and not curve(store, evaluated, sweep.metric)):
        return sweep.metric.other("knn")
    return sweep.metric


def curve(store: StoreFiles, trial: TrialRecord, metric: MetricSpec) -> Curve:
    """Return the curve of a trial's pre-training at its evaluations, up to its last epoch in this sweep."""
    rows = [row for row in epoch_rows(store.trial(trial.key)) if row.evaluation is not None]
    figures = {row.epoch: (row.evaluation or {}).get(metric.split, {}) for row in rows if row.epoch <= trial.epochs}
    values = {epoch: found.get(metric.column) for epoch, found in figures.items()}
    return {epoch: value for epoch, value in values.items() if value is not None}


def mean_curve(curves: list[Curve]) -> Curve:
    """Return the mean over the seeds at the epochs that all of them have."""
    common = [epoch for epoch in (curves[0] if curves else {}) if all(epoch in curve for curve in curves)]
    return {epoch: fmean(curve[epoch] for curve in curves) for epoch in common}


def reaches(standing: Standing, curves: dict[str, Curve], metric: MetricSpec) -> list[Reach]:
    """Return when the candidates reached the first control's final value; empty unless that control is complete.

    `curves` are by key. A candidate's seed is compared with the control of the same seed. The control itself comes
    first, because it may have reached its final value before its last epoch.
    """
    if not standing.controls or standing.controls[0].state != "complete":
        return []
    control = standing.controls[0]
    finals = {trial.seed: curves[trial.key] for trial in control.trials}
    found = []
    for entry in [control, *standing.candidates]:
        pairs = [
            (curves[trial.key], finals[trial.seed])
            for trial in entry.trials
            if curves.get(trial.key) and finals.get(trial.seed)
        ]
        first = [_first(own, base[max(base)], metric.sign) for own, base in pairs]
        if pairs:
            full = max(max(base) for _, base in pairs)
            found.append(Reach(entry, [epoch for epoch in first if epoch is not None], len(pairs), full))
    return found


def _first(own: Curve, target: float, sign: int) -> int | None:
    return next((epoch for epoch in sorted(own) if sign * own[epoch] >= sign * target), None)
