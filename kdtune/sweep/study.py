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

from kdtune.config.sweep import Block, SweepConfig
from kdtune.history.events import Asked, Outcome
from kdtune.sweep.samplers import distribution
from kdtune.sweep.search import STATES, directions, intermediate_values, quiet


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
        if sweep.prune.promote:  # a promotion may change how a candidate ended
            path.unlink(missing_ok=True)
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

    def add(self, block: Block, asked: Asked, outcome: Outcome) -> None:
        """Append the next candidate of its block, unless the journal already has it."""
        assert asked.number is not None
        if asked.number < self._there[block.index]:
            return
        space, error = self.sweep.space(block), {"error": outcome.error} if outcome.error else {}
        self._studies[block.index].add_trial(
            create_trial(
                state=STATES[outcome.state],
                values=list(outcome.objectives) or None,
                params=dict(asked.values),
                distributions={name: distribution(space[name]) for name in asked.values},
                intermediate_values=intermediate_values(self.sweep, outcome),
                user_attrs={"keys": list(asked.keys), "block": block.label, **error},
            )
        )
        self._there[block.index] = asked.number + 1
