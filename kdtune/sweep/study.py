"""Optuna's journal of a sweep, with one study per block, for optuna-dashboard and Optuna's plots. Only a view.

It is written from the outcomes in candidate order, so trial n of a study is candidate n and no trial stays RUNNING.
Resuming the sweep adds the trials that a crash or a deleted file has lost.
"""

from __future__ import annotations

import json
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import create_trial

from kdtune.config.sweep import SweepConfig
from kdtune.sweep.group import TrialGroup
from kdtune.sweep.search import STATES, Finished, directions, distribution, quiet


def study_name(sweep: str, block: str) -> str:
    """Return the name of a block's study."""
    return f"{sweep} · {block}"


class Journal:
    """The studies of a sweep in one file. Only the sweep's driver writes it."""

    def __init__(self, path: Path, sweep: SweepConfig) -> None:
        self.path, self.sweep = path, sweep
        path.parent.mkdir(parents=True, exist_ok=True)
        # The driver holds its own lock, and Optuna would wait for the lock file of a killed driver.
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
        try:
            self._studies = self._open()
        except (ValueError, KeyError, json.JSONDecodeError):  # a torn line in the middle of the file
            path.unlink()
            self._studies = self._open()
        self._there = [len(study.get_trials(deepcopy=False)) for study in self._studies]

    @quiet()
    def _open(self) -> list[Study]:
        storage = JournalStorage(JournalFileBackend(str(self.path)))
        return [
            optuna.create_study(
                storage=storage,
                study_name=study_name(self.sweep.name, block.label),
                directions=directions(self.sweep),
                load_if_exists=True,
            )
            for block in self.sweep.blocks()
        ]

    def add(self, group: TrialGroup, finished: Finished, error: str | None) -> None:
        """Append the next candidate of its block, unless the journal already has it."""
        assert group.block is not None
        assert group.number is not None
        if group.number < self._there[group.block.index]:
            return
        space = self.sweep.space(group.block)
        about = {"keys": list(group.keys), "block": group.block.label, **({"error": error} if error else {})}
        self._studies[group.block.index].add_trial(
            create_trial(
                state=STATES[finished.state],
                values=list(finished.objectives) if finished.state == "complete" else None,
                params=dict(group.values),
                distributions={name: distribution(space[name]) for name in group.values},
                intermediate_values=dict(finished.stages),
                user_attrs=about,
            )
        )
        self._there[group.block.index] = group.number + 1
