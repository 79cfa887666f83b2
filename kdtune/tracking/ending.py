"""A whole sweep for MLflow, from its history: its trials, its result, and the students that become models.

The driver uses it when a sweep ends, `publish` at any time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kdtune.config.space import value_text
from kdtune.history.events import Asked
from kdtune.history.groups import UNTUNED, GroupHistory
from kdtune.history.sweep import SweepHistory
from kdtune.store import StoreFiles, TrialFiles
from kdtune.tracking.record import NOTE, TrackedTrial
from kdtune.tracking.sweep_text import SweepResult, sweep_result

#: If two groups share a trial, the later kind wins.
ORDER = ("teacher", "refit", "control", "candidate", "further")
#: Characters that MLflow refuses in an alias (all but letters, digits, `_` and `-`), and its maximum length.
NO_ALIAS, ALIAS_LENGTH = r"[^\w-]+", 255


@dataclass(frozen=True)
class TrackedStudent:
    """A complete trial whose student becomes an MLflow model."""

    trial: TrackedTrial
    alias: str | None = None
    """The alias in the model registry, for the best of a block."""
    finetuned: bool = False
    """Whether it is the student after fine-tuning."""

    @property
    def files(self) -> TrialFiles:
        """The files of the training that ended with this student."""
        tuned = self.trial.finetuned if self.finetuned else None
        return self.trial.files if tuned is None else tuned

    @property
    def key(self) -> str:
        return self.files.key


@dataclass(frozen=True)
class Students:
    """The students of a sweep that become MLflow models."""

    wanted: tuple[TrackedStudent, ...] = ()
    register: str | None = None
    """The name under which students with an alias are registered."""


class SweepEnding:
    """The present state of a sweep, in the form that MLflow shows."""

    def __init__(self, store: StoreFiles, history: SweepHistory) -> None:
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
                self.history.candidate_of(group).objective(),
                cached=group.was_found,
                commit=self.history.record.commit,
            )
            for key in group.keys
        ]
        # A trial of an open group has nothing to show before its first epoch.
        return [trial for trial in found if not is_open or trial.files.fetch().sound_rows()]

    def result(self) -> SweepResult:
        """Return the sweep's result so far."""
        return sweep_result(self.store, self.history)

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
            for student in self._of_seeds(group, seeds):
                last = student.key == (group.asked.finetuned or group.keys)[0]
                if student.key not in by_key or (alias is not None and last):
                    by_key[student.key] = replace(student, alias=alias if last else None)

        for label, block in self.history.blocks.items() if tracking.models != "none" else ():
            if (best := block.leader) is not None:
                want(block.refit(best) or best, aliases[label])
                for control in [*block.controls.get(0, {}).values()][:1]:
                    want(block.refit(control) or control, None)
        if tracking.models == "all":
            for group in self.history.groups.values():
                want(group, None, seeds=None)
        return Students(tuple(by_key.values()), tracking.register)

    def _of_seeds(self, group: GroupHistory, seeds: int | None) -> list[TrackedStudent]:
        """Return the students of the group's first `seeds` seeds, or of all seeds, without imported weights.

        A fine-tuned trial has two. The list is empty unless the group is complete.
        """
        trials = self._trials(group)[:seeds] if group.state == "complete" else []
        own = [trial for trial in trials if "imported" not in (trial.files.identity() or {})]
        tuned = [TrackedStudent(trial, finetuned=True) for trial in trials if trial.finetuned is not None]
        return [*map(TrackedStudent, own), *tuned]


def _aliases(blocks: list[str]) -> dict[str, str]:
    """Return block → alias `best-…`, all different, with dashes for the characters that MLflow refuses."""
    found: dict[str, str] = {}
    for block in blocks:
        alias = re.sub(NO_ALIAS, "-", f"best-{block}")[: ALIAS_LENGTH - 8]
        found[block] = alias if alias not in found.values() else f"{alias}-{len(found)}"
    return found


def tracked_trial(
    store: StoreFiles,
    asked: Asked,
    key: str,
    state: str,
    objective: float | None = None,
    *,
    cached: bool = False,
    commit: Mapping[str, str] | None = None,
) -> TrackedTrial:
    """Return a trial of a group with its fine-tuning; `key` is of either.

    `objective` is the group's. `cached` says that the sweep found the trial in the store; otherwise the trial is tagged
    with `commit`, the code that trained it.
    """
    i = (asked.finetuned if key in asked.finetuned else asked.keys).index(key)
    params = {
        **asked.params[i],
        "seed": asked.seeds[i],
        "control": asked.role == "control",
        "block": asked.block,
        "key": asked.keys[i],
    }
    tags = {"kdtune.kind": asked.kind if asked.kind == "refit" else asked.role, "kdtune.cached": str(cached).lower()}
    tags[NOTE] = _note(asked, i)
    tags |= {} if cached or commit is None else commit
    # A refit's objective is measured on test, and would look like one that the search used.
    own = None if asked.kind == "refit" else objective
    # A pruned trial's fine-tuning belongs to another sweep.
    tuned = store.trial(asked.finetuned[i]) if asked.finetuned and state not in UNTUNED else None
    return TrackedTrial(store.trial(asked.keys[i]), _run_name(asked, i), params, tags, state, own, tuned, asked.epochs)


def _note(asked: Asked, i: int) -> str:
    """Return the run's description."""
    shown = {name: value for name, value in asked.params[i].items() if value is not None}
    values = ", ".join(f"{name} {value_text(value)}" for name, value in shown.items())
    tuned = " The epochs after pre-training are its fine-tuning." if asked.finetuned else ""
    again = f"`python -m kdtune replay {asked.keys[i][:12]}` trains it again and compares bit for bit."
    return f"{asked.group}, seed {asked.seeds[i]}: {values}.{tuned}\n\n{again}"


def _run_name(asked: Asked, i: int) -> str:
    """Return the run's name, distinctive parts first, because MLflow's table cuts names short."""
    if asked.block is None:
        return asked.group
    what = f"{asked.number} · {asked.params[i]['teacher']}" if asked.role == "candidate" else "control"
    what = f"refit of {what}" if asked.kind == "refit" else what
    seed = f" · seed {asked.seeds[i]}" if len(asked.seeds) > 1 or asked.kind == "further" else ""
    return f"{what} · {asked.block}{seed}"
