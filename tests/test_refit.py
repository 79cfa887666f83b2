"""`refit: true`: the chosen candidates and the controls are trained again on the whole training list."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fabricated import fabricate, sweep_of, usual_figure
from fuzzing import fuzz, fuzzed
from helpers import ROOT, sweep_results, train
from hypothesis import strategies as st
from schedulers import all_of, drive

from kdtune.api.reporting import make_report
from kdtune.clips.dataset import TrialData
from kdtune.config.checking.refit import refit_of
from kdtune.config.key import canonical
from kdtune.config.load import load_sweep
from kdtune.config.sweep import SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import EXIT_OK, ConfigError
from kdtune.execute.in_process import InProcess
from kdtune.history.front import Front
from kdtune.history.reading import read_history
from kdtune.history.trials import sweep_trials, trained_keys
from kdtune.plan.plan import plan
from kdtune.report.accuracies import accuracies
from kdtune.report.results import render
from kdtune.store import StoreFiles
from kdtune.sweep.group import TrialGroup
from kdtune.tracking.ending import SweepEnding
from kdtune.tracking.ranking import ranking, saved_view
from kdtune.train.session import Session
from sweeps import run

# ---- the trial -------------------------------------------------------------------------------------------------------


def test_a_refit_trains_on_validation_too_and_validates_on_the_same_videos(
    tiny: TrialConfig, prepared: Session
) -> None:
    clips, again = prepared.clips(tiny), refit_of(tiny)
    searched, refitted = TrialData.of(tiny, clips), TrialData.of(again, clips)
    assert sorted(refitted.train) == sorted([*searched.train, *searched.validation])
    assert refitted.validation.tolist() == searched.validation.tolist()
    assert refitted.test.tolist() == searched.test.tolist()
    assert prepared.key(again) != prepared.key(tiny)
    assert refit_of(again) == again


def test_teacher_start_and_fine_tuning_see_the_whole_list_as_well() -> None:
    other = {"student": {"backbone": "c3d"}}
    form = {"teacher": {**other, "teacher": other}, "start": {}, "finetune": {"data": {"dataset": "hmdb51"}}}
    again = refit_of(TrialConfig.model_validate(form))
    assert [part.data.train_on for part in again.lineage()] == ["all"] * 5
    assert again.finetuned is not None
    assert again.finetuned.data.dataset == "hmdb51"
    assert [part.data.train_on for part in again.finetuned.lineage()] == ["all"] * 5


def test_the_field_is_no_part_of_a_key_where_it_changes_nothing() -> None:
    assert "train_on" not in canonical(TrialConfig())["data"]
    whole = TrialConfig.model_validate({"data": {"validation": 0}})
    assert canonical(refit_of(whole)) == canonical(whole)


# ---- the scheduler ---------------------------------------------------------------------------------------------------


def refitting(**search: Any) -> SweepConfig:
    return sweep_of(search, refit=True)


def refits(found: dict[str, tuple]) -> list[str]:
    return [name for name in found if "refit" in name]


def test_refits_are_the_same_at_any_parallelism_and_after_a_crash(tmp_path: Path) -> None:
    sweep = refitting()
    alone = all_of(drive(sweep, tmp_path / "alone.jsonl"))
    # 2 blocks × (3 controls, one per seed, and the chosen candidate), after everything that they depend on
    assert len(refits(alone)) == 2 * (3 + 1)
    assert [name for name in alone if name.startswith("teacher") and "whole list" in name]
    for at_once, order in ((2, 0), (8, 1)):
        assert all_of(drive(sweep, tmp_path / f"{order}.jsonl", at_once, order)) == alone
    made: dict[str, Any] = {}
    for start in range(100):
        scheduler = drive(sweep, tmp_path / "killed.jsonl", 4, start, stop_after=3, made=made)
        if scheduler.history.complete:
            break
    assert all_of(scheduler) == alone


def test_without_refit_the_same_candidates_are_asked_and_the_ledger_continues(tmp_path: Path) -> None:
    with_it, without = refitting(), sweep_of()
    assert with_it.ledger == without.ledger
    before = all_of(drive(without, tmp_path / "ledger.jsonl"))
    after = all_of(drive(with_it, tmp_path / "ledger.jsonl"))
    assert {name: end for name, end in after.items() if name in before} == before
    assert len(refits(after)) == 8


def test_a_refit_waits_for_the_whole_search_of_its_block(tmp_path: Path) -> None:
    sweep, made = refitting(), {}
    for ends in (8, 16, 20, 21, 22, 23):
        scheduler = drive(sweep, tmp_path / f"{ends}.jsonl", 3, ends, stop_after=ends, made=dict(made))
        for index, label in enumerate(["fraction=1.0", "fraction=0.25"]):
            asked = [group for name, group in scheduler.history.groups.items() if name.startswith(label)]
            if any(group.kind == "refit" for group in asked):
                others = [group for group in asked if group.kind != "refit"]
                assert len(others) == 3 + sweep.candidates(sweep.blocks()[index])
                assert all(group.outcome is not None for group in others)


MODES = st.lists(st.sampled_from(["max", "min"]), min_size=1, max_size=3)
VALUE = st.integers(-3, 3).map(float)


@fuzzed
def test_what_is_chosen_is_what_no_other_candidate_beats(examples: int) -> None:
    def check(case: tuple[list[str], list[list[float]]]) -> None:
        modes, rows = case
        better = [1 if mode == "max" else -1 for mode in modes]
        turned = [[sign * value for sign, value in zip(better, row, strict=False)] for row in rows]
        front = Front(modes)
        for number, row in enumerate(rows):
            front.add(number, row[: len(modes)])
        found = front.numbers()[: 1 if len(modes) == 1 else None]
        if len(modes) == 1:
            best = [n for n, row in enumerate(turned) if row[0] == max(other[0] for other in turned)]
            assert found == best[:1]
            return
        beaten = [
            any(all(x >= y for x, y in zip(other, row, strict=True)) and other != row for other in turned)
            for row in turned
        ]
        assert found == [number for number, lost in enumerate(beaten) if not lost]

    rows = st.lists(st.lists(VALUE, min_size=3, max_size=3), max_size=8)
    fuzz(check, st.tuples(MODES, rows), examples=examples)


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_search_on_videos_that_were_trained_on_is_refused(tmp_path: Path) -> None:
    text = (ROOT / "sweeps" / "lambda_tau.yaml").read_text()
    file = tmp_path / "sweep.yaml"

    def said(*sets: str, refit: bool = True) -> str:
        file.write_text(text + ("\nrefit: true\n" if refit else ""))
        with pytest.raises(ConfigError) as refused:
            load_sweep(file, sets)
        return str(refused.value)

    both = said("objective.split=test", "data.validation=0")
    rule = "refit: needs a search that the test list does not steer, but"
    assert f"{rule} objective.split is test" in both
    assert f"{rule} trial.data.validation is 0" in both
    assert "trial.data.train_on: is what `refit: true` sets" in said("data.train_on=all", refit=False)
    text = text.replace("data.fraction: [0.25, 0.125]", "data.train_on: [rest, all]")
    assert "search.blocks.data.train_on: is what" in said()


# ---- what is said of it ----------------------------------------------------------------------------------------------


def figure(group: TrialGroup, i: int, epoch: int) -> float | None:
    """A refit has 20 points more, whatever it trains again; candidate 1 is chosen with all of the data."""
    again = group.asked.refits
    if again is None:
        return usual_figure(group, i, epoch)
    refitted = replace(group, asked=replace(group.asked, kind=again.kind, refits=None))
    return (usual_figure(refitted, i, epoch) or 0) + 0.2


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> StoreFiles:
    store = StoreFiles(tmp_path_factory.mktemp("refit") / "runs")
    fabricate(store, refitting(), figure)
    return store


def test_results_name_the_refits_apart_with_their_figures_on_test(told: StoreFiles) -> None:
    found = sweep_trials(told, read_history(told, "s"))
    results = sweep_results(told, "s")
    again = [trial for trial in results["refits"] if trial["block"] == "fraction=1.0"]
    assert [(trial["control"], trial["candidate"], trial["seed"]) for trial in again] == [
        *((True, None, seed) for seed in (0, 1, 2)),
        *((False, 1, seed) for seed in (0, 1, 2)),
    ]
    chosen_one = next(t for t in results["trials"] if t["block"] == "fraction=1.0" and t["candidate"] == 1)
    assert again[3]["objective"] == pytest.approx(chosen_one["objective"] + 0.2 - 0.01)  # on test one point lower
    assert again[3]["key"] not in [trial["key"] for trial in results["trials"]]
    assert set(trained_keys(told, "s")) >= {trial["key"] for trial in results["refits"]}
    table = render(found, "table", {})
    assert "fraction=1.0: trained again on the whole list, k-NN accuracy on test" in table
    rows = list(csv.DictReader(render(found, "csv", {}).splitlines()))
    assert len([row for row in rows if row["refits"]]) == len(results["refits"]) == 12
    assert "fraction=0.25, test, trained again on the whole list" in accuracies(found, "table")


@pytest.mark.usefixtures("empty_plots")
def test_the_report_s_test_figures_are_those_of_the_refits(told: StoreFiles) -> None:
    page = make_report(told, "s")[0].read_text()
    assert "trained again on the whole training list" in page
    found = list(csv.DictReader((told.report("s") / "tables" / "test.csv").read_text().splitlines()))
    refits = sweep_results(told, "s")["refits"]
    measured = [t["stages"]["late"]["test"]["knn"] for t in refits if t["block"] == "fraction=1.0" and t["control"]]
    assert float(next(value for head, value in found[0].items() if head.endswith("on test"))) == pytest.approx(
        sum(measured) / 3
    )
    every = (told.report("s") / "tables" / "trials.csv").read_text()
    assert "fraction=1.0 · refit of 1" in every
    assert all(trial["key"] in every for trial in refits)


def test_watchers_and_mlflow_are_told(told: StoreFiles) -> None:
    history = read_history(told, "s")
    assert history.complete
    ending = SweepEnding(told, history)
    assert "Trained again on the whole training list, k-NN accuracy on test" in ending.result().text
    runs = [trial for trial in ending.trials() if trial.tags["kdtune.kind"] == "refit"]
    assert len(runs) == 12
    assert {trial.objective for trial in runs} == {None}
    assert any(trial.name.startswith("refit of 1 · ") for trial in runs)
    _, view = saved_view("s", "parent", ranking(history.record), 0)
    assert "!= 'refit'" in view, "they have trained on what the view sorts by"
    best = next(s for s in ending.students().wanted if s.alias == "best-fraction-1-0")
    assert best.trial.tags["kdtune.kind"] == "refit"


def test_plan_counts_the_refits_until_they_are_there(told: StoreFiles, tmp_path: Path) -> None:
    sweep = refitting()
    lines = list(plan(sweep, StoreFiles(tmp_path / "empty")))
    # 2 teachers, 6 controls, 10 candidates of 3 seeds; then the teachers, the controls and the chosen of 2 blocks again
    assert "refits       12 on the whole training list: 6 controls, 6 chosen, with their teachers" in lines
    assert any(line.startswith(f"to train     at most {2 + 6 + 30 + 2 + 6 + 6} trials") for line in lines)


@pytest.mark.slow
def test_a_real_sweep_trains_its_refits_once_and_to_the_bits_of_a_trial_alone(
    sweep_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    form = {**sweep_form, "refit": True, "search": {**sweep_form["search"], "blocks": {}, "candidates": 2}}
    file, store = tmp_path / "tiny.yaml", StoreFiles(tmp_path / "runs")
    file.write_text(yaml.safe_dump(form))
    store.root.mkdir()
    end, said = run(file, store.root, InProcess())
    assert end.exit_code == EXIT_OK, said
    refits = sweep_results(store, "tiny")["refits"]
    assert [(refit["control"], refit["state"]) for refit in refits] == [(True, "complete"), (False, "complete")]
    sweep = load_sweep(file)
    control = refit_of(sweep.build(sweep.blocks()[0], sweep.search.controls[0], 0))
    alone = train(control, StoreFiles(tmp_path / "alone"), prepared)
    assert alone.key == refits[0]["key"]
    assert (alone.result() or {})["weights_sha256"] == refits[0]["weights_sha256"]
    again, _ = run(file, store.root, InProcess())
    assert again.trained == 0
