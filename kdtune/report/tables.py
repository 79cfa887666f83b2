"""What `results` prints: tables of each block to read, and every trial as CSV or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from kdtune.config.metrics import majority_of
from kdtune.config.space import value_text
from kdtune.report.results import on_test
from kdtune.store.records import objectives_of
from kdtune.tables import Cell, Table
from kdtune.tables import render as rendered

FORMATS = ("table", "json", "csv", "markdown", "latex")
#: Formats with a table per block → the tables' form.
READABLE = {"table": "text", "markdown": "markdown", "latex": "latex"}
#: Fields of a trial that become several columns (params, stages, cost) or none.
NESTED = ("params", "stages", "objectives", "cost", "profile", "earlier_profiles")
#: Candidates per block in the summary; the rest are only counted.
SHOWN = 5


def render(results: dict[str, Any], sweep: dict[str, Any], form: str) -> str:
    """Return `results` of sweep_results in one of FORMATS; `sweep` is the sweep's stored record."""
    if form == "json":
        return json.dumps(results, indent=1, ensure_ascii=False)
    if form == "csv":
        return rendered(_trials(results), "csv")
    return "\n\n".join(rendered(table, READABLE[form]) for table in _blocks(results, sweep, None))


def summary(results: dict[str, Any], sweep: dict[str, Any]) -> str:
    """Return what is printed at the end of a sweep: for each block the control and the best candidates."""
    return "\n\n".join(rendered(table, "text") for table in summary_tables(results, sweep))


def summary_tables(results: dict[str, Any], sweep: dict[str, Any]) -> list[Table]:
    """Return the tables of `summary`."""
    return list(_blocks(results, sweep, SHOWN))


def _blocks(results: dict[str, Any], sweep: dict[str, Any], most: int | None) -> Iterator[Table]:
    """Yield a table for each block and, if it has refits, one with their figures on the test split."""
    for block in sweep["blocks"]:
        yield _block(results, sweep, block, most)
        refits = [trial for trial in results.get("refits", []) if trial["block"] == block]
        if refits:
            again = {"trials": refits, "best": {block: []}}
            yield _block(again, on_test(sweep), block, None, "trained again on the whole list, ")


def _block(results: dict[str, Any], sweep: dict[str, Any], block: str, most: int | None, what: str = "") -> Table:
    objective, *others = objectives_of(sweep)
    metric, split = objective["column"], objective["split"]
    trials = [trial for trial in results["trials"] if trial["block"] == block]
    # Metrics of the action head have no value before fine-tuning.
    lacking = {s for trial in trials for s, splits in trial["stages"].items() if metric not in splits[split]}
    stages = [stage for stage in sweep["stages"] if stage not in lacking]
    controls = {trial["seed"]: trial for trial in reversed(trials) if trial["control"]}
    sign = -1 if objective["mode"] == "max" else 1
    candidates = [trial for trial in trials if not trial["control"]]
    # Complete candidates by their objective, then pruned ones by their epochs.
    candidates.sort(key=lambda t: (t["objective"] is None, sign * (t["objective"] or 0), -t["epochs"], t["candidate"]))
    shown = candidates if most is None else candidates[:most]
    best = [trial["key"] for trial in results["best"][block]] if others else []
    rows = []
    for trial in [*(trial for trial in trials if trial["control"]), *shown]:
        params = trial["params"]
        control = controls.get(trial["seed"])
        name = "control" if trial["control"] else str(trial["candidate"])
        row = [name, *(value_text(params[p]) for p in ("student", "teacher", "lambda", "tau", "alpha"))]
        if len(controls) > 1:
            row.insert(1, str(trial["seed"]))
        row += [_share(trial["stages"].get(stage, {}).get(split, {}).get(metric)) for stage in stages]
        row += [value_text(value) for value in (trial.get("objectives") or [])[1:]]
        row += [_gain(trial, control), _state(trial) + (", Pareto" if trial["key"] in best else "")]
        rows.append(row)
    heads = ["trial", "student", "teacher", "λ", "τ", "α", *stages]
    heads += [*(f"{other['column']} ({other['mode']})" for other in others), "gain", "state"]
    if len(controls) > 1:
        heads.insert(1, "seed")
    majority = _share(_majority(trials, metric, split))
    title = f"{block}: {what}{metric.replace('_', ' ')} accuracy on {split} (majority baseline {majority})"
    rest = candidates[len(shown) :]
    notes = [f"… and {len(rest)} more: {_by_state(rest)}"] if rest else []
    return Table.of(heads, rows, title, *notes)


def _majority(trials: list[dict[str, Any]], metric: str, split: str) -> float | None:
    """Return the score of always answering the most frequent class."""
    name = majority_of(metric)
    majorities = [stage[split][name] for trial in trials for stage in trial["stages"].values() if name in stage[split]]
    return majorities[0] if majorities else None


def _gain(trial: dict[str, Any], control: dict[str, Any] | None) -> str:
    """Return the objective minus the same seed's control, in points."""
    if control is None or trial["control"] or trial["objective"] is None or control["objective"] is None:
        return ""
    return f"{100 * (trial['objective'] - control['objective']):+.1f}"


def _state(trial: dict[str, Any]) -> str:
    if trial["state"] == "pruned":
        return f"pruned at {list(trial['stages'])[-1]}"
    return trial["state"] + (f": {trial['error']}" if trial["error"] else "")


def _by_state(trials: list[dict[str, Any]]) -> str:
    """Return every candidate's number by state, as in `3, 6 complete; 5 pruned at early`."""
    numbers: dict[str, list[str]] = {}
    for trial in trials:
        numbers.setdefault(_state(trial), []).append(str(trial["candidate"]))
    return "; ".join(f"{', '.join(dict.fromkeys(found))} {state}" for state, found in numbers.items())


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _trials(results: dict[str, Any]) -> Table:
    """Return one row per trial, with stage accuracies in columns like `late.validation.knn`, costs in `cost.gmac`."""
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
