"""The tables of a report: blocks, test figures, convergence, stops, trials, profiles."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from kdtune.config.recipe import recipe
from kdtune.config.space import Parameter, Scalar, resolve, value_text
from kdtune.config.sweep import SweepConfig
from kdtune.history.gains import Gain
from kdtune.history.metric import MetricSpec
from kdtune.history.trials import Profile, TrialRecord, baseline_in
from kdtune.history.words.names import label
from kdtune.report.convergence import Reach
from kdtune.report.standing import Entry, Standing, SweepReport
from kdtune.tables import Cell, Column, Table, number

#: Hex digits of a digest that a table shows.
SHORT = 12


def block_table(sweep: SweepReport, standing: Standing, name: str) -> Table:
    """Return the controls and candidates of a block with values, stages, objectives, gain and interval."""
    metric, params = sweep.metric, sweep.varied_in(standing)
    entries = [*standing.controls, *standing.candidates]
    stages = [s for s in sweep.history.record.stages if any(entry.values(metric.at(stage=s)) for entry in entries)]
    stages = [] if metric.cost else stages
    others = [m for m in sweep.metrics if m != metric]
    columns = [Column("trial"), *(Column(label(p), align=_align(entries, p)) for p in params), *map(number, stages)]
    columns += [number(metric.name)] if metric.cost else []
    columns += [number(f"{m.name} ({m.mode})") for m in others]
    columns += [number(metric.gain_head), number("interval"), Column("verdict"), Column("state")]
    rows = []
    for entry in entries:
        cells = [Cell(entry.name), *(Cell(value_text(entry.params.get(p)), entry.params.get(p)) for p in params)]
        best = entry in standing.best
        cells += [mean_cell(entry, metric.at(stage=s), strong=best and s == metric.stage) for s in stages]
        cells += [mean_cell(entry, m) for m in ([metric] if metric.cost else [])]
        cells += [mean_cell(entry, m) for m in others]
        rows.append([*cells, *gain_cells(standing.gains.get(entry.name), metric), Cell(_state(entry, standing))])
    majority = baseline_in(metric, [entry.trials[0] for entry in entries])
    title = f"{standing.block}: {metric.name}{f' on {metric.split}' if not metric.cost else ''}"
    title += "" if majority is None else f" (majority baseline {majority:.3f})"
    return Table(columns, rows, title, name=name, keys=[entry.keys for entry in entries])


def on_test_table(sweep: SweepReport) -> Table | None:
    """Return the chosen candidates and their controls on the test split, which no search has seen."""
    rows, keys, metric = [], [], sweep.metric.at(split="test")
    for standing in sweep.standings:
        best, gains = sweep.chosen_on_test(standing)
        controls = standing.controls if sweep.refits is None else sweep.refitted(standing)[0]
        for entry in [*controls[:1], *best]:
            if entry.finals(metric):
                role = entry.described(sweep.varied_in(standing))
                cells = [Cell(standing.block), Cell(role), mean_cell(entry, metric)]
                rows.append([*cells, *gain_cells(gains.get(entry.name), metric)])
                keys.append(entry.keys)
    columns = [Column("block"), Column("trial"), number(f"{metric.name} on test")]
    columns += [number(metric.gain_head), number("interval"), Column("verdict")]
    title = "Chosen on validation, measured on test"
    title += "" if sweep.refits is None else ", trained again on the whole training list"
    return Table(columns, rows, title, name="test", keys=keys) if rows else None


def reach_table(reaches: dict[str, list[Reach]], sweep: SweepReport, metric: MetricSpec) -> Table | None:
    """Return the epochs until each trial reaches the control's final value, and the share of epochs saved."""
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
    title = f"Epochs to the control's final {metric.name} on {metric.split}"
    note = (
        "The first evaluated epoch with a value at least as good as the final one of the control of the same seed. "
        "Trials are evaluated at their stages and, with stage.every, between them, so epochs are only as exact as "
        "that. The control's row shows when it first reached its own final value."
    )
    return Table(columns, rows, title, [note], "convergence", keys) if rows else None


def recipe_table(config: SweepConfig) -> Table:
    """Return the settings that all trials share and the search, in the sweep file's words."""
    search, chosen = config.search, {resolve(name) for name in (*config.search.blocks, *config.search.space)}
    rows = [(path, text) for path, text in recipe(config.trial).items() if path not in chosen]
    rows += [(f"blocks: {name}", ", ".join(map(value_text, values))) for name, values in search.blocks.items()]
    rows += [(f"searched: {name}", _searched(parameter)) for name, parameter in search.space.items()]
    rows += [("seeds", search.seeds_text), ("sampler", search.sampler)]
    if config.constraints:
        rows.append(("constraints", "; ".join(map(str, config.constraints))))
    if config.prune.at:
        rows.append(("pruned at", f"{', '.join(config.prune.at)}, the best {config.prune.keep:.0%} continue"))
    note = "Settings that are not here have their defaults: see the configuration reference."
    return Table([Column("setting"), Column("value")], [[Cell(a), Cell(b)] for a, b in rows], "", [note], "settings")


def _searched(parameter: Parameter) -> str:
    if parameter.bounds is None:
        return ", ".join(map(value_text, parameter.choice or ()))
    whole = parameter.int is not None or parameter.int_log is not None
    low, high = map(value_text, parameter.bounds)
    return f"{low} … {high}{', whole numbers' if whole else ''}{', log-uniform' if parameter.is_log else ''}"


def trials_table(sweep: SweepReport) -> Table:
    """Return every trial once, with the command that trains it again."""
    seen: dict[str, list[TrialRecord]] = {}
    every = sweep.every
    for trial in every:
        seen.setdefault(trial.key, []).append(trial)
    profiles = profiles_of(every)
    rows = []
    for key, trials in seen.items():
        first = trials[0]
        roles = dict.fromkeys(map(_role, trials))
        profile = profiles.index(first.profile) + 1 if first.profile in profiles else ""
        begun = first.state not in ("pending", "failed") and first.epochs
        rows.append(
            [
                Cell(key),
                Cell(", ".join(roles)),
                Cell(str(first.seed), first.seed),
                Cell(first.state + (f": {first.error}" if first.error else "")),
                Cell(str(first.epochs), first.epochs),
                Cell(_several(sweep, first), first.objective if len(sweep.metrics) == 1 else None),
                Cell(str(profile)),
                Cell((first.weights_sha256 or "")[:SHORT], first.weights_sha256),
                Cell(f"python -m kdtune replay {key[:SHORT]}" if begun else ""),
            ]
        )
    columns = [Column("key"), Column("is"), number("seed"), Column("state"), number("epochs"), number("objective")]
    columns += [number("profile"), Column("weights (SHA-256)"), Column("made again by")]
    note = "replay trains the trial again and compares bit for bit; add --store unless the store is runs."
    return Table(columns, rows, "Every trial", [note], "trials", [[key] for key in seen], lists_trials=True)


def _role(trial: TrialRecord) -> str:
    """Return a trial's place, as in `fraction=1.0 · 3`, `fraction=1.0 · refit of 3` or `teacher c3d`."""
    if trial.block is None:
        return trial.group.name
    what = "control" if trial.is_control else str(trial.candidate)
    return f"{trial.block} · {'refit of ' if trial.group.kind == 'refit' else ''}{what}"


def profiles_of(trials: Sequence[TrialRecord]) -> list[Profile]:
    """Return the distinct machines and versions that trials ended on."""
    found: list[Profile] = []
    for trial in trials:
        if trial.profile is not None and trial.profile not in found:
            found.append(trial.profile)
    return found


def profile_table(trials: Sequence[TrialRecord]) -> Table | None:
    """Return the machines and versions that the bits depend on, besides the trial itself."""
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


def _several(sweep: SweepReport, trial: TrialRecord) -> str:
    return ", ".join(m.text(v) for m, v in zip(sweep.metrics, trial.values, strict=False))


def _align(entries: list[Entry], parameter: str) -> Literal["left", "right"]:
    numbers = all(isinstance(entry.params.get(parameter), int | float | None) for entry in entries)
    return "right" if numbers else "left"


def mean_cell(entry: Entry, metric: MetricSpec, *, strong: bool = False) -> Cell:
    """Return the mean over the seeds, with its spread."""
    values = list(entry.values(metric).values())
    return Cell(entry.text(metric), fmean(values) if values else None, strong)


def gain_cells(gain: Gain | None, metric: MetricSpec) -> list[Cell]:
    """Return a gain, its interval and its verdict, each in a cell."""
    if gain is None:
        return [Cell(""), Cell(""), Cell("")]
    interval = metric.interval_text(gain.low, gain.high)
    return [Cell(metric.gain_text(gain.mean), gain.mean), Cell(interval or "none"), Cell(gain.verdict)]


def _state(entry: Entry, standing: Standing) -> str:
    promoted = entry.trials[0].group.promoted
    if entry.state == "pruned":
        return f"pruned at {entry.last_stage}{promoted}"
    error = next((trial.error for trial in entry.trials if trial.error), None)
    if entry.state in ("failed", "infeasible") and error:
        return f"{entry.state}: {error.splitlines()[0][:60]}"
    if entry.trials[0].group.dropped is not None:
        return f"{entry.state}, dropped at look {entry.trials[0].group.dropped}{promoted}"
    pareto = len(standing.history.objectives) > 1 and entry in standing.best
    return entry.state + (", Pareto set" if pareto else "") + promoted
