"""The tables of a report: blocks, test figures, convergence, stops, trials, profiles."""

from __future__ import annotations

from statistics import fmean
from typing import Any, Literal

from kdtune.config.space import Scalar, value_text
from kdtune.history.gains import Gain
from kdtune.report.convergence import Reach
from kdtune.report.measure import Measure, label
from kdtune.report.standing import Entry, Standing, Sweep
from kdtune.report.stops import Stops
from kdtune.report.words import chosen_on_test, majority_in
from kdtune.tables import Cell, Column, Table, number

#: Hex digits of a digest that a table shows.
SHORT = 12


def block_table(sweep: Sweep, standing: Standing, name: str) -> Table:
    """Return controls and candidates of a block: values, stages, objectives, gain with its interval."""
    measure, params = sweep.measure, sweep.varied_in(standing)
    entries = [*standing.controls, *standing.candidates]
    stages = [s for s in sweep.record["stages"] if any(entry.values(measure, s) for entry in entries)]
    stages = [] if measure.cost else stages
    others = [m for m in sweep.measures if m != measure]
    columns = [Column("trial"), *(Column(label(p), align=_align(entries, p)) for p in params), *map(number, stages)]
    columns += [number(f"{m.name} ({m.mode})") for m in others]
    columns += [number(_with_unit("gain", measure)), number("interval"), Column("says"), Column("state")]
    rows = []
    for entry in entries:
        cells = [Cell(entry.name), *(Cell(value_text(entry.params.get(p)), entry.params.get(p)) for p in params)]
        best = entry in standing.best
        cells += [_mean(entry, measure, stage, strong=best and stage == measure.stage) for stage in stages]
        cells += [_mean(entry, m, m.stage) for m in others]
        rows.append([*cells, *_gain(standing.gains.get(entry.name), measure), Cell(_state(entry, standing))])
    majority = majority_in(standing, measure)
    title = f"{standing.block}: {measure.name}{f' on {measure.split}' if not measure.cost else ''}"
    title += "" if majority is None else f" (majority baseline {majority:.3f})"
    return Table(columns, rows, title, name=name, keys=[entry.keys for entry in entries])


def on_test_table(sweep: Sweep, measure: Measure) -> Table | None:
    """Return the chosen candidates and their controls on the test split, which no search has seen."""
    rows, keys = [], []
    for standing in sweep.standings:
        best, gains, _ = chosen_on_test(sweep, standing, measure)
        of = standing if sweep.refits is None else sweep.refitted(standing)
        for entry in [*of.controls[:1], *best]:
            if entry.finals(measure, "test"):
                role = entry.described(sweep.varied_in(standing))
                cells = [Cell(standing.block), Cell(role), _mean(entry, measure, measure.stage, "test")]
                rows.append([*cells, *_gain(gains.get(entry.name), measure)])
                keys.append(entry.keys)
    columns = [Column("block"), Column("trial"), number(f"{measure.name} on test")]
    columns += [number(_with_unit("gain", measure)), number("interval"), Column("says")]
    title = "Chosen on validation, measured on test"
    title += "" if sweep.refits is None else ", trained again on the whole training list"
    return Table(columns, rows, title, name="test", keys=keys) if rows else None


def reach_table(reaches: dict[str, list[Reach]], sweep: Sweep, measure: Measure) -> Table | None:
    """Return the epochs until a trial reaches what the control ends with, and the share of its epochs saved."""
    rows, keys = [], []
    for standing in sweep.standings:
        for reach in reaches.get(standing.block, []):
            entry = reach.entry
            epochs = "not reached" if reach.mean is None else f"{reach.mean:.4g}"
            saved = "" if reach.saved is None else f"{reach.saved:.0%}"
            cells = [Cell(standing.block), Cell(entry.described(sweep.varied_in(standing)))]
            cells += [Cell(f"{len(reach.epochs)} of {reach.seeds}"), Cell(epochs, reach.mean), Cell(saved, reach.saved)]
            rows.append([*cells, Cell(entry.state)])
            keys.append(entry.keys)
    columns = [Column("block"), Column("trial"), number("seeds that reached it"), number("first at epoch")]
    columns += [number("epochs saved"), Column("state")]
    title = f"Epochs to the control's final {measure.name} on {measure.split}"
    note = (
        "The first evaluated epoch with at least what the control of the same seed has at its last one. Trials are "
        "evaluated at their stages, and between them where stage.every asks for it: an epoch is known as finely as "
        "that. The control's own line says when it first had that figure itself."
    )
    return Table(columns, rows, title, [note], "convergence", keys) if rows else None


def stops_table(stops: Stops, measure: Measure) -> Table | None:
    """Return the pruned candidates that were trained to their end."""
    rows = []
    for found in stops.finished:
        over_control = None if found.control is None else found.sign * (found.value - found.control)
        rows.append(
            [
                Cell(found.block),
                Cell(f"candidate {found.number}"),
                Cell(found.stage),
                Cell(measure.text(found.value), found.value),
                *(_signed(gain, measure) for gain in (found.over_best, over_control)),
                Cell("wrong: it would be the best" if found.wrong else "right"),
            ]
        )
    columns = [Column("block"), Column("trial"), Column("stopped at"), number("in the end")]
    columns += [number(_with_unit(f"less the {other}", measure)) for other in ("best", "control")]
    columns += [Column("the stop was")]
    title = f"Stopped candidates, trained to the end: {measure.title}"
    keys = [found.keys for found in stops.finished]
    return Table(columns, rows, title, name="stops", keys=keys) if rows else None


def trials_table(sweep: Sweep) -> Table:
    """Return every trial once, with the command that trains it again."""
    seen: dict[str, list[dict[str, Any]]] = {}
    every = [*sweep.trials, *(sweep.refits or [])]
    for trial in every:
        seen.setdefault(trial["key"], []).append(trial)
    profiles = profiles_of(every)
    rows = []
    for key, trials in seen.items():
        first = trials[0]
        roles = dict.fromkeys(map(_role, trials))
        profile = profiles.index(first["profile"]) + 1 if first["profile"] in profiles else ""
        begun = first["state"] not in ("pending", "failed") and first["epochs"]
        rows.append(
            [
                Cell(key),
                Cell(", ".join(roles)),
                Cell(str(first["seed"]), first["seed"]),
                Cell(first["state"] + (f": {first['error']}" if first["error"] else "")),
                Cell(str(first["epochs"]), first["epochs"]),
                Cell(sweep.measure.text(first["objective"]) if len(sweep.measures) == 1 else _several(sweep, first)),
                Cell(str(profile)),
                Cell((first["weights_sha256"] or "")[:SHORT], first["weights_sha256"]),
                Cell(f"python -m kdtune replay {key[:SHORT]}" if begun else ""),
            ]
        )
    columns = [Column("key"), Column("is"), number("seed"), Column("state"), number("epochs"), number("objective")]
    columns += [number("profile"), Column("weights (SHA-256)"), Column("made again by")]
    note = "replay trains it from nothing and compares bit for bit; add --store where the store is not runs."
    return Table(columns, rows, "Every trial", [note], "trials", [[key] for key in seen], lists_trials=True)


def _role(trial: dict[str, Any]) -> str:
    """Return a trial's place, as in `fraction=1.0 · 3` or `fraction=1.0 · refit of 3`."""
    what = "control" if trial["control"] else str(trial["candidate"])
    return f"{trial['block']} · {'refit of ' if 'refits' in trial else ''}{what}"


def profiles_of(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the different machines and versions that trials ended on."""
    found: list[dict[str, Any]] = []
    for trial in trials:
        if trial["profile"] is not None and trial["profile"] not in found:
            found.append(trial["profile"])
    return found


def profile_table(trials: list[dict[str, Any]]) -> Table | None:
    """Return what the bits depend on besides the trial itself."""
    profiles = profiles_of(trials)
    names = list(dict.fromkeys(name for profile in profiles for name in profile))
    rows = [
        [Cell(name), *(Cell(_short(profile.get(name)), profile.get(name)) for profile in profiles)] for name in names
    ]
    columns = [Column("", "property"), *(Column(f"profile {i + 1}") for i in range(len(profiles)))]
    return Table(columns, rows, "Machines and versions", name="profiles") if rows else None


def _short(value: Scalar) -> str:
    text = value_text(value)
    return text if len(text) <= 40 else f"{text[:SHORT]}…"


def _several(sweep: Sweep, trial: dict[str, Any]) -> str:
    values = trial.get("objectives") or []
    return ", ".join(m.text(v) for m, v in zip(sweep.measures, values, strict=False) if v is not None)


def _with_unit(label: str, measure: Measure) -> str:
    return f"{label} ({measure.unit})" if measure.unit else label


def _align(entries: list[Entry], parameter: str) -> Literal["left", "right"]:
    numbers = all(isinstance(entry.params.get(parameter), int | float | None) for entry in entries)
    return "right" if numbers else "left"


def _mean(entry: Entry, measure: Measure, stage: str, split: str | None = None, *, strong: bool = False) -> Cell:
    values = list(entry.values(measure, stage, split).values())
    return Cell(entry.text(measure, stage, split), fmean(values) if values else None, strong)


def _gain(gain: Gain | None, measure: Measure) -> list[Cell]:
    if gain is None:
        return [Cell(""), Cell(""), Cell("")]
    interval = measure.interval_text(gain.low, gain.high)
    says = {"better": "surely better", "worse": "surely worse"}.get(gain.verdict, gain.verdict)
    return [Cell(measure.gain_text(gain.mean), gain.mean), Cell(interval or "none"), Cell(says)]


def _signed(gain: float | None, measure: Measure) -> Cell:
    return Cell("" if gain is None else measure.gain_text(gain), gain)


def _state(entry: Entry, standing: Standing) -> str:
    if entry.state == "pruned":
        return f"pruned at {entry.last_stage}"
    error = next((trial["error"] for trial in entry.trials if trial["error"]), None)
    if entry.state == "failed" and error:
        return f"failed: {error.splitlines()[0][:60]}"
    pareto = len(standing.best) > 1 or entry.trials[0].get("objectives")
    return entry.state + (", Pareto set" if pareto and entry in standing.best else "")
