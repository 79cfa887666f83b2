"""Savings and costs of pruning: the epochs not trained, and the results of pruned candidates trained to their end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from kdtune.config.trial import TrialConfig
from kdtune.errors import Problem, StoreError
from kdtune.history.gains import LEVEL
from kdtune.history.groups import GroupHistory
from kdtune.history.intervals.shares import count_interval
from kdtune.history.metric import MetricSpec
from kdtune.history.sweep import SweepHistory
from kdtune.history.trials import epoch_rows, trial_end
from kdtune.report.page import Heading, Part, Text
from kdtune.report.standing import SweepReport
from kdtune.store import StoreFiles
from kdtune.tables import Cell, Column, Table, number


@dataclass(frozen=True)
class FinishedStop:
    """A pruned candidate whose trials the store holds to their end; values are means over the seeds."""

    block: str
    number: int
    stage: str
    """The stage where it was pruned."""
    keys: Sequence[str]
    value: float
    over_best: float | None
    """Gain over the block's best candidate, in the metric's unit; above 0 the stop was wrong."""
    over_control: float | None

    @property
    def wrong(self) -> bool:
        return self.over_best is not None and self.over_best > 0


@dataclass(frozen=True)
class Stops:
    """The pruned candidates of a sweep."""

    pruned: int
    """Number of pruned candidates."""
    candidates: int
    """Number of candidates that are pruned or complete."""
    trained: int
    """Pre-training epochs of those candidates, over all seeds."""
    saved: int
    """Pre-training epochs that the pruned candidates had left, over all seeds."""
    finished: list[FinishedStop] = field(default_factory=list)


def stops_of(store: StoreFiles, sweep: SweepReport) -> Stops:
    """Return the effects of pruning, from the history and the store."""
    groups = [
        group
        for block in sweep.history.blocks.values()
        for _, group in sorted(block.candidates.items())
        if group.state in ("complete", "pruned")
    ]
    pruned = [group for group in groups if group.state == "pruned"]
    ended = {group.name for group in groups}
    trials = [trial for trial in sweep.trials if trial.group.name in ended]
    saved = sum(trial.group.asked.epochs - trial.epochs for trial in trials if trial.state == "pruned")
    found = (_finished(store, sweep.history, group) for group in pruned)
    finished = [stop for stop in found if stop is not None]
    return Stops(len(pruned), len(groups), sum(trial.epochs for trial in trials), saved, finished)


def _finished(store: StoreFiles, history: SweepHistory, group: GroupHistory) -> FinishedStop | None:
    metric, block = history.objectives[0], history.block_of(group)
    values = []
    for i, key in enumerate(group.keys):
        end = trial_end(store.trial(key))
        if end is None:
            return None
        rows = epoch_rows(store.trial(group.asked.finetuned[i])) if group.asked.finetuned else []
        tuned = {row.stage: row.evaluation for row in rows if row.stage is not None and row.evaluation is not None}
        value = metric.value_of({**end.stages, **tuned}, end.cost or {})
        if value is None:
            return None
        values.append(value)
    best = block.best[0].objective() if block.best else None
    control = list(block.control_values(0).values())
    return FinishedStop(
        block.label,
        group.number,
        "" if group.outcome is None else group.outcome.stage or "",
        group.keys,
        fmean(values),
        None if best is None else metric.gain(fmean(values), best),
        metric.gain(fmean(values), fmean(control)) if control else None,
    )


# ---- the page ------------------------------------------------------------------------------------------------------


def stops_parts(stops: Stops, sweep: SweepReport) -> Iterator[Part]:
    """Yield the section on what pruning saved and cost."""
    yield Heading("What pruning saved and cost")
    if not stops.pruned:
        yield Text("Nothing was pruned.")
        return
    share = stops.saved / (stops.saved + stops.trained)
    yield Text(
        f"{stops.pruned} of {stops.candidates} ended candidates were pruned: {stops.saved} epochs were not trained, "
        f"{share:.0%} of what these candidates would have taken."
    )
    if not stops.finished:
        yield Text(
            "The cost is not known: no pruned candidate was trained to its end. "
            f"`python -m kdtune report {sweep.history.name} --regret 3` trains three of them to their end."
        )
        return
    wrong = [found for found in stops.finished if found.wrong]
    low, high = count_interval(len(wrong), len(stops.finished), LEVEL)
    metric = sweep.metrics[0]
    worst = max((found.over_best or 0.0 for found in wrong), default=0.0)
    by = f", by {metric.gain_text(worst, unit=True)} at most" if wrong else ""
    yield Text(
        f"{len(stops.finished)} pruned candidates were trained to their end: {len(wrong)} would have been their "
        f"block's best{by}. So {len(wrong)} of {len(stops.finished)} stops were wrong (95% interval {low:.0%} to "
        f"{high:.0%}, "
        "Clopper–Pearson)."
    )
    if (table := stops_table(stops, metric)) is not None:
        yield table


def stops_table(stops: Stops, metric: MetricSpec) -> Table | None:
    """Return the pruned candidates that were trained to their end."""
    rows = []
    for found in stops.finished:
        rows.append(
            [
                Cell(found.block),
                Cell(f"candidate {found.number}"),
                Cell(found.stage),
                Cell(metric.text(found.value), found.value),
                *(_signed(gain, metric) for gain in (found.over_best, found.over_control)),
                Cell("wrong: it would be the best" if found.wrong else "right"),
            ]
        )
    columns = [Column("block"), Column("trial"), Column("stopped at"), number("in the end")]
    columns += [number(metric.gain_head.replace("gain", f"less the {other}", 1)) for other in ("best", "control")]
    columns += [Column("the stop was")]
    title = f"Pruned candidates, trained to their end: {metric.title}"
    keys = [found.keys for found in stops.finished]
    return Table(columns, rows, title, name="stops", keys=keys) if rows else None


def _signed(gain: float | None, metric: MetricSpec) -> Cell:
    return Cell("" if gain is None else metric.gain_text(gain), gain)


# ---- --regret -------------------------------------------------------------------------------------------------------


def chosen_stops(history: SweepHistory, count: int) -> Iterator[tuple[str, list[tuple[str, TrialConfig]]]]:
    """Yield (name, [(key, trial)]) of `count` pruned candidates, for `--regret` to finish, fine-tunings included.

    The choice depends only on hashes of their names: it is the same each time, a larger count adds to a smaller one,
    and results have no influence. Raises StoreError if the sweep pruned nothing.
    """
    sweep = history.record.sweep()
    pruned = [group for group in history.groups.values() if group.state == "pruned"]
    if not pruned:
        raise StoreError([Problem("--regret", "finishes pruned candidates, but this sweep has none yet")])
    blocks = {block.label: block for block in sweep.blocks()}
    for group in sorted(pruned, key=lambda group: hashlib.sha256(group.name.encode()).hexdigest())[:count]:
        trials = []
        for i, seed in enumerate(group.seeds):
            config = sweep.build(blocks[group.asked.block or ""], group.asked.values, seed)
            trials.append((group.keys[i], config))
            if config.finetuned is not None:
                trials.append((group.asked.finetuned[i], config.finetuned))
        yield group.name, trials
