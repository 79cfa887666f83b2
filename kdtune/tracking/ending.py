"""A whole sweep for MLflow, from its history: the trials, a summary, and the students that become models.

The driver uses it when a sweep ends, `publish` at any time.
"""

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
#: Characters that MLflow refuses in an alias (all but letters, digits, `_` and `-`), and its maximum length.
NO_ALIAS, ALIAS_LENGTH = r"[^\w-]+", 255


@dataclass(frozen=True)
class TrackedStudent:
    """A complete trial whose student becomes an MLflow model."""

    trial: TrackedTrial
    alias: str | None = None
    """The alias in the model registry, for the best of a block."""


@dataclass(frozen=True)
class Students:
    """The students of a sweep that become MLflow models."""

    wanted: tuple[TrackedStudent, ...] = ()
    register: str | None = None
    """The name under which students with an alias are registered."""


class SweepEnding:
    """The present state of a sweep, in the form that MLflow shows."""

    def __init__(self, store: Store, history: SweepHistory) -> None:
        self.store, self.history = store, history

    # ---- trials ------------------------------------------------------------------------------------------------------

    def trials(self) -> list[TrackedTrial]:
        """Return every trial that has begun."""
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
        # A trial of an open group has nothing to show before its first epoch.
        return [trial for trial in found if not is_open or trial.files.fetch().sound_rows()]

    # ---- summary -----------------------------------------------------------------------------------------------------

    def summary(self) -> str:
        """Return Markdown with the control and the best candidate of each block."""
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
        """Return the control's figure, the best candidate's and its gain; with `refit`, those of their refits."""
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
        """Return the students that the sweep file asks for, fine-tuned ones included.

        `best` asks for the first seed of each block's best candidate and control, `all` for every complete trial. A
        refit of the best candidate takes its place and its alias, and a refit of the control takes the control's place.
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
        """Return the complete trials of the group's first `seeds` seeds, or of all seeds, without imported weights."""
        keys = {*group.keys[:seeds], *group.asked.finetuned[:seeds]}
        found = [trial for trial in self._trials(group) if trial.key in keys and trial.state == "complete"]
        return [trial for trial in found if "imported" not in (trial.files.identity() or {})]


def _figure(metric: MetricSpec, values: Sequence[float]) -> str:
    """Write the mean of the seeds' values with their sample standard deviation; empty without values."""
    return metric.text(fmean(values), stdev(values) if len(values) > 1 else None) if values else ""


def _numbers(block: BlockHistory) -> str:
    return ", ".join(f"candidate {group.number}" for group in block.best) or "none is complete"


def _aliases(blocks: list[str]) -> dict[str, str]:
    """Return block → alias `best-…`, all different, with dashes for the characters that MLflow refuses."""
    found: dict[str, str] = {}
    for block in blocks:
        alias = re.sub(NO_ALIAS, "-", f"best-{block}")[: ALIAS_LENGTH - 8]
        found[block] = alias if alias not in found.values() else f"{alias}-{len(found)}"
    return found
