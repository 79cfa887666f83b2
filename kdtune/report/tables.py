"""What `results` prints: tables of each block to read, and every trial as CSV or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from kdtune.config.space import value_text
from kdtune.history.groups import BlockHistory
from kdtune.history.metric import MetricSpec
from kdtune.history.trials import SweepTrials, TrialRecord, baseline_in
from kdtune.report.results import results_json
from kdtune.tables import Cell, Table
from kdtune.tables import render as rendered

FORMATS = ("table", "json", "csv", "markdown", "latex")
#: Formats with a table per block → the tables' form.
READABLE = {"table": "text", "markdown": "markdown", "latex": "latex"}
#: Fields of a trial that become several columns (params, stages, cost) or none.
NESTED = ("params", "stages", "objectives", "cost", "profile", "earlier_profiles")
#: Candidates per block in the summary; the rest are only counted.
SHOWN = 5


def render(found: SweepTrials, form: str, run_ids: Mapping[str, str]) -> str:
    """Return the results of a sweep in one of FORMATS; `run_ids`: trial's key → MLflow's run."""
    if form == "json":
        return json.dumps(results_json(found, run_ids), indent=1, ensure_ascii=False)
    if form == "csv":
        return rendered(_trials(found, run_ids), "csv")
    return "\n\n".join(rendered(table, READABLE[form]) for table in _blocks(found, None))


def summary(found: SweepTrials) -> str:
    """Return what is printed at the end of a sweep: for each block the control and the best candidates."""
    return "\n\n".join(rendered(table, "text") for table in summary_tables(found))


def summary_tables(found: SweepTrials) -> list[Table]:
    """Return the tables of `summary`."""
    return list(_blocks(found, SHOWN))


def _blocks(found: SweepTrials, most: int | None) -> Iterator[Table]:
    """Yield a table for each block, of `most` candidates, and, if it has refits, one with their figures on test."""
    objectives, stages = found.history.objectives, list(found.history.record.stages)
    for label, block in found.history.blocks.items():
        yield _block(block, [trial for trial in found.trials if trial.block == label], objectives, stages, most)
        if refits := [trial for trial in found.refits or [] if trial.block == label]:
            tested = [objective.at(split="test") for objective in objectives]
            yield _block(block, refits, tested, stages, None, "trained again on the whole list, ")


def _block(
    block: BlockHistory,
    trials: Sequence[TrialRecord],
    objectives: Sequence[MetricSpec],
    stages: Sequence[str],
    most: int | None,
    what: str = "",
) -> Table:
    metric = objectives[block.place]
    others = [(i, objective) for i, objective in enumerate(objectives) if i != block.place]
    # Metrics of the action head have no value before fine-tuning; a cost has one in the end alone.
    reached = [(trial, stage) for trial in trials for stage in trial.stages]
    lacking = {stage for trial, stage in reached if trial.figure(metric.at(stage=stage)) is None}
    stages = [] if metric.cost else [stage for stage in stages if stage not in lacking]
    controls, candidates = ([t for t in trials if t.is_control is control] for control in (True, False))
    # Complete candidates by their value, then pruned ones by their epochs.
    candidates.sort(key=lambda t: (not t.values, -metric.sign * _value(t, block.place), -t.epochs, t.group.number))
    shown = candidates if most is None else candidates[:most]
    seeds = len({trial.seed for trial in controls}) > 1
    best = [group.name for group in block.best] if others else []
    rows = []
    for trial in [*controls, *shown]:
        row = ["control" if trial.is_control else str(trial.candidate), *([str(trial.seed)] if seeds else [])]
        row += [value_text(trial.params.get(p)) for p in ("student", "teacher", "lambda", "tau", "alpha")]
        row += [metric.text(trial.figure(metric.at(stage=stage))) for stage in stages]
        row += [metric.text(trial.figure(metric))] if metric.cost else []
        row += [objective.text(trial.values[i]) if trial.values else "" for i, objective in others]
        row += [_gain(block, trial), _state(trial) + (", Pareto" if trial.group.name in best else "")]
        rows.append(row)
    columns = ["trial", *(["seed"] if seeds else []), "student", "teacher", "λ", "τ", "α", *stages]
    columns += [metric.name] if metric.cost else []
    columns += [*(f"{objective.name} ({objective.mode})" for _, objective in others), metric.gain_head, "state"]
    title = f"{block.label}: {what}{metric.name}{'' if metric.cost else f' on {metric.split}'}"
    majority = baseline_in(metric, trials)
    title += "" if majority is None else f" (majority baseline {majority:.3f})"
    rest = candidates[len(shown) :]
    notes = [f"… and {len(rest)} more: {_by_state(rest)}"] if rest else []
    return Table.of(columns, rows, title, *notes)


def _value(trial: TrialRecord, place: int) -> float:
    return trial.values[place] if trial.values else 0.0


def _gain(block: BlockHistory, trial: TrialRecord) -> str:
    """Return the trial's gain over the control of its seed."""
    gain = None if trial.is_control else block.gain(trial.group)
    if gain is None or trial.seed not in gain.seeds:
        return ""
    return block.metric.gain_text(gain.differences[gain.seeds.index(trial.seed)])


def _state(trial: TrialRecord) -> str:
    outcome = trial.group.outcome
    if outcome is not None and outcome.stage is not None:
        return f"pruned at {outcome.stage}"
    return trial.state + (f": {trial.error}" if trial.error else "")


def _by_state(trials: Sequence[TrialRecord]) -> str:
    """Return every candidate's number by state, as in `3, 6 complete; 5 pruned at early`."""
    numbers: dict[str, list[str]] = {}
    for trial in trials:
        numbers.setdefault(_state(trial), []).append(str(trial.candidate))
    return "; ".join(f"{', '.join(dict.fromkeys(found))} {state}" for state, found in numbers.items())


def _trials(found: SweepTrials, run_ids: Mapping[str, str]) -> Table:
    """Return one row per trial, with stage accuracies in columns like `late.validation.knn`, costs in `cost.gmac`."""
    results = results_json(found, run_ids)
    rows = []
    for trial in [*results["trials"], *results.get("refits", [])]:
        flat = {name: value for name, value in trial.items() if name not in NESTED}
        flat |= trial["params"]
        for stage, splits in trial["stages"].items():
            flat |= {f"{stage}.{split}.{metric}": v for split, values in splits.items() for metric, v in values.items()}
        flat |= {f"cost.{name}": figure for name, figure in (trial["cost"] or {}).items()}
        rows.append(flat)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return Table.of(columns, [[Cell("", row.get(name)) for name in columns] for row in rows])
