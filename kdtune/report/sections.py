"""The tables of a report: standings by block, test figures, convergence, stops, trials, profiles."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from kdtune.config.space import Scalar, value_text
from kdtune.report.convergence import Reach
from kdtune.report.gains import Gain
from kdtune.report.measure import Measure, label
from kdtune.report.sheets import Cell, Sheet
from kdtune.report.standing import Entry, Standing, Sweep
from kdtune.report.stops import Stops
from kdtune.report.words import chosen_on_test, majority_in

#: Hex digits of a digest that tell it from others.
SHORT = 12


def block_sheet(sweep: Sweep, standing: Standing, name: str) -> Sheet:
    """Controls and candidates of a block: values, stages, objectives, gain with its interval."""
    measure, params = sweep.measure, sweep.varied_in(standing)
    entries = [*standing.controls, *standing.candidates]
    stages = [s for s in sweep.record["stages"] if any(entry.values(measure, s) for entry in entries)]
    stages = [] if measure.cost else stages
    others = [m for m in sweep.measures if m != measure]
    heads = ["trial", *map(label, params), *stages, *(f"{m.name} ({m.mode})" for m in others)]
    heads += [f"gain ({measure.unit})" if measure.unit else "gain", "interval", "says", "state"]
    rows = []
    for entry in entries:
        cells = [Cell(entry.name), *(Cell(value_text(entry.params.get(p)), entry.params.get(p)) for p in params)]
        cells += [_mean(entry, measure, stage) for stage in stages]
        cells += [_mean(entry, m, m.stage) for m in others]
        rows.append([*cells, *_gain(standing.gains.get(entry.name), measure), Cell(_state(entry, standing))])
    majority = majority_in(standing, measure)
    title = f"{standing.block}: {measure.name}{f' on {measure.split}' if not measure.cost else ''}"
    title += "" if majority is None else f" (majority baseline {majority:.3f})"
    return Sheet(name, title, heads, rows, [entry.keys for entry in entries])


def on_test_sheet(sweep: Sweep, measure: Measure) -> Sheet | None:
    """The chosen candidates and their controls on the test split, which no search has seen."""
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
    heads = ["block", "trial", f"{measure.name} on test", f"gain ({measure.unit})", "interval", "says"]
    title = "Chosen on validation, measured on test"
    title += "" if sweep.refits is None else ", trained again on the whole training list"
    return Sheet("test", title, heads, rows, keys) if rows else None


def reach_sheet(reaches: dict[str, list[Reach]], sweep: Sweep, measure: Measure) -> Sheet | None:
    """Epochs to what the control ends with, and the share of its epochs saved."""
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
    heads = ["block", "trial", "seeds that reached it", "first at epoch", "epochs saved", "state"]
    title = f"Epochs to the control's final {measure.name} on {measure.split}"
    note = (
        "The first evaluated epoch with at least what the control of the same seed has at its last one. Trials are "
        "evaluated at their stages, and between them where stage.every asks for it: an epoch is known as finely as "
        "that. The control's own line says when it first had that figure itself."
    )
    return Sheet("convergence", title, heads, rows, keys, note) if rows else None


def stops_sheet(stops: Stops, measure: Measure) -> Sheet | None:
    """Pruned candidates whose ends are known."""
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
    unit = f" ({measure.unit})" if measure.unit else ""
    heads = [
        "block",
        "trial",
        "stopped at",
        "in the end",
        f"less the best{unit}",
        f"less the control{unit}",
        "the stop was",
    ]
    title = f"Stopped candidates, trained to the end: {measure.title}"
    keys = [found.keys for found in stops.finished]
    return Sheet("stops", title, heads, rows, keys) if rows else None


def trials_sheet(sweep: Sweep) -> Sheet:
    """Every trial once, with the command that makes it again."""
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
    heads = ["key", "is", "seed", "state", "epochs", "objective", "profile", "weights (SHA-256)", "made again by"]
    note = "replay trains it from nothing and compares bit for bit; add --store where the store is not runs."
    return Sheet("trials", "Every trial", heads, rows, [[key] for key in seen], note, lists_trials=True)


def _role(trial: dict[str, Any]) -> str:
    """As in `fraction=1.0 · 3` or `fraction=1.0 · refit of 3`."""
    what = "control" if trial["control"] else str(trial["candidate"])
    return f"{trial['block']} · {'refit of ' if 'refits' in trial else ''}{what}"


def profiles_of(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The machines and versions that trials ended on, each once."""
    found: list[dict[str, Any]] = []
    for trial in trials:
        if trial["profile"] is not None and trial["profile"] not in found:
            found.append(trial["profile"])
    return found


def profile_sheet(trials: list[dict[str, Any]]) -> Sheet | None:
    """What bits depend on beside the trial itself."""
    profiles = profiles_of(trials)
    names = list(dict.fromkeys(name for profile in profiles for name in profile))
    rows = [
        [Cell(name), *(Cell(_short(profile.get(name)), profile.get(name)) for profile in profiles)] for name in names
    ]
    heads = ["", *(f"profile {i + 1}" for i in range(len(profiles)))]
    return Sheet("profiles", "Machines and versions", heads, rows) if rows else None


def _short(value: Scalar) -> str:
    text = value_text(value)
    return text if len(text) <= 40 else f"{text[:SHORT]}…"


def _several(sweep: Sweep, trial: dict[str, Any]) -> str:
    values = trial.get("objectives") or []
    return ", ".join(m.text(v) for m, v in zip(sweep.measures, values, strict=False) if v is not None)


def _mean(entry: Entry, measure: Measure, stage: str, split: str | None = None) -> Cell:
    values = list(entry.values(measure, stage, split).values())
    return Cell(entry.text(measure, stage, split), fmean(values) if values else None)


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
