"""What MLflow shows of a sweep as a whole, by its history: all its trials, its result in a few lines, and the students
that become models. The driver asks for it when a sweep ends, `publish` at any time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from kdtune.config.space import value_text
from kdtune.history.groups import STATES, BlockHistory, GroupHistory
from kdtune.history.metric import MetricSpec
from kdtune.history.sweep import SweepHistory
from kdtune.store import Store
from kdtune.tracking.record import TrackedTrial
from kdtune.tracking.trials import keys_of, tracked_trial

#: If two groups share a trial, the later kind wins.
ORDER = ("teacher", "refit", "control", "candidate")
#: MLflow takes letters, digits, `_` and `-` in an alias, this many at most.
NO_ALIAS, ALIAS_LENGTH = r"[^\w-]+", 255


@dataclass(frozen=True)
class TrackedStudent:
    """A complete trial whose student becomes an MLflow model."""

    trial: TrackedTrial
    alias: str | None = None
    """In the model registry: it is the best of a block."""


@dataclass(frozen=True)
class Students:
    """Those of a sweep."""

    wanted: tuple[TrackedStudent, ...] = ()
    register: str | None = None
    """The name under which those with an alias are registered."""


class SweepEnding:
    """A sweep as its history says it is now."""

    def __init__(self, store: Store, history: SweepHistory) -> None:
        self.store, self.history = store, history

    # ---- trials ------------------------------------------------------------------------------------------------------

    def trials(self) -> list[TrackedTrial]:
        """Return every trial that was begun."""
        groups = sorted(self.history.groups.values(), key=lambda group: ORDER.index(group.kind))
        return [trial for group in groups for trial in self._trials(group)]

    def _trials(self, group: GroupHistory) -> list[TrackedTrial]:
        is_open = group.outcome is None
        found = [
            tracked_trial(
                self.store,
                group.asked,
                key,
                "running" if is_open else group.state,
                group.objective(),
                cached=group.was_found,
                commit=self.history.record.commit,
            )
            for key in keys_of(group.asked, "complete" if is_open else group.state)
        ]
        # What was asked, or would follow, and has no epoch yet has nothing to show.
        return [trial for trial in found if not is_open or trial.files.fetch().sound_rows()]

    # ---- the result --------------------------------------------------------------------------------------------------

    def summary(self) -> str:
        """Return Markdown: in each block the best candidate beside its control."""
        history, metric = self.history, self.history.metric
        better = "higher" if metric.sign > 0 else "lower"
        counted = Counter(group.state for group in history.groups.values() if group.kind == "candidate")
        states = [f"{counted[state]} {state}" for state in STATES if counted[state]]
        lines = [f"**{metric.name}**{metric.where} ({better} is better)", "", *self._table(refit=False)]
        if len(history.objectives) > 1:
            names = ", ".join(f"{objective.name} ({objective.mode})" for objective in history.objectives)
            lines += ["", f"Pareto sets of {names}:", ""]
            lines += [f"- {label}: {_numbers(block)}" for label, block in history.blocks.items()]
        lines += ["", f"Candidates: {', '.join(states) or 'none'}."]
        if history.record.refit and not metric.cost:
            lines += ["", f"Trained again on the whole training list, {metric.name} on test:", ""]
            lines += self._table(refit=True)
        return "\n".join(lines)

    def _table(self, refit: bool) -> list[str]:
        heads = ["block", "control", "chosen candidate" if refit else "best candidate", self.history.metric.gain_head]
        rows = [[label, *self._row(block, refit)] for label, block in self.history.blocks.items()]
        return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]

    def _row(self, block: BlockHistory, refit: bool) -> tuple[str, str, str]:
        """Return the control's figure, the best candidate's and its gain; with `refit` those of their refits."""
        control = _figure(block.metric, [*block.control_values(refit=refit).values()]) or "–"
        best = block.leader
        shown = block.refit(best) if refit and best is not None else best
        values = [] if shown is None else [*shown.values(block.place).values()]
        if best is None or shown is None or not values:
            return control, "not complete" if refit else "none is complete", "–"
        chosen = {name: value_text(value) for name, value in best.asked.values.items() if value is not None}
        described = "" if refit else f" ({', '.join(f'{name} {text}' for name, text in chosen.items())})"
        gain = block.gain(shown)
        words = block.metric.gain_text(None if gain is None else gain.mean) or "–"
        return control, f"{_figure(block.metric, values)}, candidate {best.number}{described}", words

    # ---- models ------------------------------------------------------------------------------------------------------

    def students(self) -> Students:
        """Return those that the sweep file asks for, each of a trial's first seed; with a fine-tuning also what that
        made.

        Where the best of a block was trained again on the whole list, that student takes its place; so of the control.
        """
        tracking = self.history.record.tracking
        aliases = _aliases(list(self.history.blocks))
        by_key: dict[str, TrackedStudent] = {}

        def want(group: GroupHistory, alias: str | None, seeds: int | None = 1) -> None:
            for trial in self._of_seeds(group, seeds):
                last = trial.key == (group.asked.finetuned or group.keys)[0]
                if trial.key not in by_key or (alias is not None and last):
                    by_key[trial.key] = TrackedStudent(trial, alias if last else None)

        for label, block in self.history.blocks.items() if tracking.models != "none" else ():
            if (best := block.leader) is not None:
                want(block.refit(best) or best, aliases[label])
                for control in [*block.controls.get(0, {}).values()][:1]:
                    want(block.refit(control) or control, None)
        if tracking.models == "all":
            for group in self.history.groups.values():
                want(group, None, seeds=None)
        return Students(tuple(by_key.values()), tracking.register)

    def _of_seeds(self, group: GroupHistory, seeds: int | None) -> list[TrackedTrial]:
        """Return the complete trials of the group's first `seeds` seeds, or of all; imported weights are nobody's
        student."""
        keys = {*group.keys[:seeds], *group.asked.finetuned[:seeds]}
        found = [trial for trial in self._trials(group) if trial.key in keys and trial.state == "complete"]
        return [trial for trial in found if "imported" not in (trial.files.identity() or {})]


def _figure(metric: MetricSpec, values: Sequence[float]) -> str:
    """Return the mean of the seeds' values with their sample standard deviation, in words; empty for no values."""
    return metric.text(fmean(values), stdev(values) if len(values) > 1 else None) if values else ""


def _numbers(block: BlockHistory) -> str:
    return ", ".join(f"candidate {group.number}" for group in block.best) or "none is complete"


def _aliases(blocks: list[str]) -> dict[str, str]:
    """Block → `best-…`, a dash for what MLflow refuses; no two blocks share one."""
    found: dict[str, str] = {}
    for block in blocks:
        alias = re.sub(NO_ALIAS, "-", f"best-{block}")[: ALIAS_LENGTH - 8]
        found[block] = alias if alias not in found.values() else f"{alias}-{len(found)}"
    return found
