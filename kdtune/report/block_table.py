"""The table of a block: a row for each trial, or for each candidate with the means over its seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from kdtune.config.space import value_text
from kdtune.config.trial import FINETUNE_STAGE
from kdtune.history.blocks import BlockHistory
from kdtune.history.gains import Gain
from kdtune.history.metric import MetricSpec
from kdtune.history.trials import TrialRecord, baseline_in
from kdtune.tables import Table

#: The trials of a row: one, or those of a control or a candidate, one per seed.
Row = Sequence[TrialRecord]


def block_table(
    block: BlockHistory,
    trials: Sequence[TrialRecord],
    objectives: Sequence[MetricSpec],
    stages: Sequence[str],
    most: int | None = None,
    gains: Mapping[int, Gain] | None = None,
    what: str = "",
    notes: Sequence[str] = (),
) -> Table:
    """Return the table of a block's controls and candidates: controls first, then complete candidates by their value,
    then pruned ones by their epochs.

    With `gains`, candidate → gain, a row has all seeds of a control or candidate, and its gain has the interval.
    Without, a row has one trial. `most` limits the candidates; the rest are only counted. `what` qualifies the title.
    """
    metric = objectives[block.place]
    others = [(i, objective) for i, objective in enumerate(objectives) if i != block.place]
    # Metrics of the action head have no value before fine-tuning; a cost has one in the end alone.
    reached = [(trial, stage) for trial in trials for stage in trial.stages]
    lacking = {stage for trial, stage in reached if trial.figure(metric.at(stage=stage)) is None}
    stages = [] if metric.cost else [stage for stage in stages if stage not in lacking]
    tuned = metric.other("top1", FINETUNE_STAGE)
    others_tuned = tuned.base != metric.base and any(trial.figure(tuned) is not None for trial in trials)
    controls, candidates = (_rows(trials, control, merged=gains is not None) for control in (True, False))
    value_of = _value_at(block.place)
    candidates.sort(
        key=lambda row: (
            not row[0].values,
            -metric.sign * (_mean(row, value_of) or 0.0),
            -row[0].epochs,
            row[0].group.number,
        )
    )
    shown = candidates if most is None else candidates[:most]
    seeds = len({trial.seed for trial in trials if trial.is_control}) > 1
    best = [group.name for group in block.best] if others else []
    rows = []
    for own in [*controls, *shown]:
        trial = own[0]
        row = ["control" if trial.is_control else str(trial.candidate)]
        row += [] if not seeds else [str(trial.seed) if gains is None else str(len(own))]
        row += [value_text(trial.params.get(p)) for p in ("student", "teacher", "lambda", "tau", "alpha")]
        figures = [*(metric.at(stage=stage) for stage in stages), *([metric] if metric.cost else [])]
        row += [figure.text(_mean(own, _figure(figure))) for figure in figures]
        row += [
            objective.text(mean) if (mean := _mean(own, _value_at(i))) is not None else "" for i, objective in others
        ]
        row += [tuned.text(_mean(own, _figure(tuned)))] if others_tuned else []
        gain = None if gains is None or trial.candidate is None else gains.get(trial.candidate)
        row += [_gain(block, trial) if gains is None else _interval(block, gain)]
        row += [_states(own) + (", Pareto" if trial.group.name in best else "")]
        rows.append(row)
    columns = ["trial", *([] if not seeds else ["seed" if gains is None else "seeds"])]
    columns += ["student", "teacher", "λ", "τ", "α", *stages]
    columns += [metric.name] if metric.cost else []
    columns += [f"{objective.name} ({objective.mode})" for _, objective in others]
    columns += [*(["top-1, fine-tuned"] if others_tuned else []), metric.gain_head, "state"]
    title = f"{block.label}: {what}{metric.name}{'' if metric.cost else f' on {metric.split}'}"
    majority = baseline_in(metric, trials)
    title += "" if majority is None else f" (majority baseline {majority:.3f})"
    rest = candidates[len(shown) :]
    more = [f"… and {len(rest)} more: {_by_state(rest)}"] if rest else []
    return Table.of(columns, rows, title, *more, *notes)


def _rows(trials: Sequence[TrialRecord], control: bool, merged: bool) -> list[Row]:
    """Return the rows of the controls or of the candidates: a trial each, or `merged`, all seeds of each."""
    own = [trial for trial in trials if trial.is_control is control]
    if not merged:
        return [[trial] for trial in own]
    found: dict[int, list[TrialRecord]] = {}
    for trial in own:
        found.setdefault(trial.group.number, []).append(trial)
    return list(found.values())


def _mean(row: Row, figure: Callable[[TrialRecord], float | None]) -> float | None:
    """Return the mean of a figure over the trials that have it; None if none has."""
    found = [value for trial in row if (value := figure(trial)) is not None]
    return fmean(found) if found else None


def _figure(metric: MetricSpec) -> Callable[[TrialRecord], float | None]:
    return lambda trial: trial.figure(metric)


def _value_at(place: int) -> Callable[[TrialRecord], float | None]:
    return lambda trial: trial.values[place] if trial.values else None


def _gain(block: BlockHistory, trial: TrialRecord) -> str:
    """Return the trial's gain over the control of its seed."""
    differences = {} if trial.is_control else block.differences(trial.group)
    if trial.seed not in differences:
        return ""
    return block.metric.gain_text(block.metric.scaled(differences[trial.seed]))


def _interval(block: BlockHistory, gain: Gain | None) -> str:
    """Return a candidate's mean gain and its interval."""
    if gain is None:
        return ""
    interval = block.metric.interval_text(gain.low, gain.high)
    return block.metric.gain_text(gain.mean) + (f" ({interval})" if interval else "")


def _state(trial: TrialRecord) -> str:
    outcome = trial.group.outcome
    if outcome is not None and outcome.stage is not None:
        return f"pruned at {outcome.stage}{trial.group.promoted}"
    if trial.group.dropped is not None:
        return f"{trial.state}, dropped at look {trial.group.dropped}{trial.group.promoted}"
    return f"{trial.state}{trial.group.promoted}" + (f": {trial.error}" if trial.error else "")


def _states(row: Row) -> str:
    return "; ".join(dict.fromkeys(map(_state, row)))


def _by_state(rows: Sequence[Row]) -> str:
    """Return every candidate's number by state, as in `3, 6 complete; 5 pruned at early`."""
    numbers: dict[str, list[str]] = {}
    for row in rows:
        numbers.setdefault(_states(row), []).append(str(row[0].candidate))
    return "; ".join(f"{', '.join(dict.fromkeys(found))} {state}" for state, found in numbers.items())
