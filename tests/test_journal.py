"""Optuna's journal of a sweep as others read it, from the file alone."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from helpers import CANDIDATES, sweep_of
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from schedulers import all_of, drive, outcome_of

from kdtune.config.sweep import SweepConfig
from kdtune.sweep.group import Outcome, TrialGroup


def studies(journal: Path, sweep: SweepConfig) -> dict[str, list[FrozenTrial]]:
    """Load the study as optuna-dashboard does, from the file alone."""
    storage = JournalStorage(JournalFileBackend(str(journal)))
    names = optuna.get_all_study_names(storage)
    return {
        name.removeprefix(f"{sweep.name} · "): optuna.load_study(study_name=name, storage=storage).trials
        for name in names
    }


def test_the_journal_holds_every_candidate_with_its_end(tmp_path: Path) -> None:
    sweep = sweep_of()
    made: dict[str, Outcome] = {}
    for stop_after in (2, 5, 4, None):  # with crashes on the way
        scheduler = drive(sweep, tmp_path / "ledger.jsonl", at_once=4, stop_after=stop_after, made=made)
    found = studies(tmp_path / "ledger.log", sweep)
    assert list(found) == ["fraction=1.0", "fraction=0.25"]
    states = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    for block, trials in found.items():
        assert [trial.number for trial in trials] == list(range(CANDIDATES))
        for trial in trials:
            group = scheduler.history.groups[f"{block} · candidate {trial.number}"]
            end = group.outcome
            assert end is not None
            assert trial.state.name == states[end.state]
            assert trial.params == dict(group.asked.values)
            assert trial.user_attrs["keys"] == list(group.asked.keys)
            assert trial.user_attrs.get("error") == end.error
            assert trial.intermediate_values == {sweep.trial.stages[stage]: v for stage, v in end.stages.items()}
            assert trial.state.name != "COMPLETE" or trial.values == list(end.objectives)


@pytest.mark.parametrize("harm", ["removed", "torn", "locked"])
def test_a_harmed_journal_is_written_anew(tmp_path: Path, harm: str) -> None:
    sweep, made = sweep_of(), {}
    drive(sweep, tmp_path / "ledger.jsonl", made=made)
    journal = tmp_path / "ledger.log"
    whole = studies(journal, sweep)
    if harm == "removed":
        journal.unlink()
    elif harm == "torn":
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join([*lines[:7], lines[7][:9], *lines[8:]]))
    else:
        journal.with_name("ledger.log.lock").symlink_to(journal)  # Optuna's file from a process that was killed
    drive(sweep, tmp_path / "ledger.jsonl", made=made)
    again = studies(journal, sweep)
    assert {block: [(t.state, t.params, t.values) for t in trials] for block, trials in again.items()} == {
        block: [(t.state, t.params, t.values) for t in trials] for block, trials in whole.items()
    }


def test_several_objectives_go_to_the_search_and_none_is_pruned(tmp_path: Path) -> None:
    form = sweep_of(sampler="nsga2").model_dump(by_alias=True, exclude_unset=True)
    objective = [{"metric": "knn", "mode": "max"}, {"metric": "gmac", "mode": "min"}]
    sweep = SweepConfig.model_validate({**form, "objective": objective, "prune": {}})

    def both(group: TrialGroup) -> Outcome:
        end = outcome_of(group)
        values = ((end.stages.get("late", 0.5),), (group.configs[0].student.width / 10,))
        return end if end.state == "failed" else Outcome("complete", values, stages=end.stages)

    alone = all_of(drive(sweep, tmp_path / "alone.jsonl", outcome=both))
    assert all_of(drive(sweep, tmp_path / "many.jsonl", at_once=8, outcome=both)) == alone
    trials = studies(tmp_path / "many.log", sweep)["fraction=1.0"]
    assert [trial.values for trial in trials] == [
        list(alone[f"fraction=1.0 · candidate {n}"][3].objectives) or None for n in range(CANDIDATES)
    ]
