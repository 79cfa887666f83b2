"""Sweeps whose candidates are fine-tuned, and what a search may read (DESIGN 4.3)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from databases import empty_database
from helpers import link_clips, sweep_results
from mlflow import MlflowClient

from kdtune.config.load import load_sweep
from kdtune.errors import EXIT_OK, ConfigError
from kdtune.execute.books import Ending
from kdtune.execute.driver import drive
from kdtune.execute.in_process import InProcess
from kdtune.history.reading import read_history
from kdtune.history.trials import sweep_trials
from kdtune.report.accuracies import accuracies
from kdtune.store import StoreFiles
from kdtune.store.files import read_jsonl, write_json, write_jsonl
from kdtune.store.records import TrialFiles
from kdtune.train.session import Session
from kdtune.watch.live import Plain


def run(form: dict[str, Any], folder: Path) -> Ending:
    file = folder / f"{form['name']}.yaml"
    file.write_text(yaml.safe_dump(form))
    uri = empty_database(folder / "mlflow.db")
    end = drive(load_sweep(file), file.read_text(), StoreFiles(folder), InProcess(), uri, Plain(lambda _: None))
    assert end.exit_code == EXIT_OK
    return end


@pytest.fixture(scope="module")
def form(sweep_form: dict[str, Any]) -> dict[str, Any]:
    """Each candidate learns from the one before. One that is not the best so far is pruned; others are fine-tuned."""
    trial = {**sweep_form["trial"], "finetune": {"epochs": 2, "optimizer": {"lr": 0.05}}}
    space = {"alpha": {"range": [0.1, 1.0]}, "optimizer.lr": {"log": [1e-4, 1e-1]}}
    search = {"space": space, "candidates": 5, "startup": 1, "window": 1}
    return {
        "name": "phases",
        "trial": trial,
        "search": search,
        "objective": {"metric": "pretext_loss", "mode": "min", "stage": "late"},
        "prune": {"at": ["early"], "keep": 0.1, "min_peers": 1},
    }


@pytest.fixture(scope="module")
def swept(form: dict[str, Any], prepared: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phases")
    link_clips(prepared.store.root, folder)
    run(form, folder)
    return folder


def trials_of(folder: Path, name: str = "phases") -> list[dict[str, Any]]:
    return sweep_results(StoreFiles(folder), name)["trials"]


def test_what_is_not_pruned_is_fine_tuned_and_shown_as_a_stage(swept: Path, form: dict[str, Any]) -> None:
    trials = trials_of(swept)
    states = [trial["state"] for trial in trials]
    assert states[0] == "complete", "the control"
    assert {"complete", "pruned"} == set(states[1:]), "nothing to tell apart"
    for trial in trials:
        if trial["state"] == "pruned":
            assert list(trial["stages"]) == ["early"]
            assert trial["finetune"] is None
        else:
            assert list(trial["stages"]) == ["early", "late", "finetune"]
            assert {"top1", "f1", "best_top1"} <= set(trial["stages"]["finetune"]["test"])
            assert "pretext" not in trial["stages"]["finetune"]["test"]
            assert trial["objective"] == trial["stages"]["late"]["validation"]["pretext_loss"]
    complete = states.count("complete")
    assert len(list((swept / "trials").iterdir())) == len(trials) + complete
    table = accuracies(sweep_trials(StoreFiles(swept), read_history(StoreFiles(swept), "phases")), "markdown")
    assert table.count("finetune") >= 2 * 10
    assert f"{trials[0]['stages']['finetune']['test']['top1']:.3f}" in table


def test_mlflow_shows_fine_tunings_in_their_trials_runs(swept: Path) -> None:
    client = MlflowClient(f"sqlite:///{swept}/mlflow.db")
    experiment = client.get_experiment_by_name("phases")
    assert experiment is not None
    assert "kdtune ui" in experiment.tags["mlflow.note.content"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "kdtune.sweep" in run.data.tags]
    trials = {trial["key"]: trial for trial in trials_of(swept)}
    found = {run.data.params["key"]: run for run in runs if run is not parent}
    assert found.keys() == trials.keys()
    for key, trial in trials.items():
        data = found[key].data
        settings = {"epochs": "2", "optimizer.batch": "16", "clip.frames": "8", "clip.size": "24"}
        assert settings.items() <= data.params.items()
        assert data.params["optimizer.lr"] == str(trial["params"].get("optimizer.lr", 0.01))
        assert found[key].info.status == "FINISHED"
        assert f"replay {key[:12]}" in data.tags["mlflow.note.content"]
        assert ("finetune/test/top1" in data.metrics) == (trial["state"] == "complete")
        if trial["state"] == "complete":
            assert data.metrics["finetune/test/top1"] == trial["stages"]["finetune"]["test"]["top1"]
            assert data.tags["kdtune.finetuned"] == trial["finetune"]
            assert (data.params["finetune.epochs"], data.params["finetune.optimizer.lr"]) == ("2", "0.05")
            steps = client.get_metric_history(found[key].info.run_id, "finetune/train/loss")
            assert [entry.step for entry in steps] == [3, 4]
            steps = client.get_metric_history(found[key].info.run_id, "epoch_seconds")
            assert sorted(entry.step for entry in steps) == [1, 2, 3, 4]
    history = read_history(StoreFiles(swept), "phases")
    block = history.blocks["all"]
    assert block.leader is not None
    gain = block.gain(block.leader)
    assert gain is not None
    assert parent.data.metrics == {"best/pretext_loss": block.leader.objective(), "best/gain": gain.mean}
    assert parent.data.tags["kdtune.verdict"] == "not decided"
    assert "`optimizer.batch` 16" in parent.data.tags["mlflow.note.content"]


@pytest.mark.slow
def test_another_fine_tuning_shares_the_pre_training(swept: Path, form: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(swept, tmp_path / "copy")
    again = run(form, tmp_path / "copy")
    trials = trials_of(swept)
    assert (again.trained, again.found) == (0, len(trials) + sum(trial["finetune"] is not None for trial in trials))
    checkpoint = tmp_path / "copy" / "trials" / trials_of(swept)[0]["key"] / "checkpoint.pt"
    written = checkpoint.stat().st_mtime_ns
    trial = {**form["trial"], "finetune": {"epochs": 1, "normalize": False, "optimizer": {"lr": 0.05}}}
    objective = {**form["objective"], "metric": "top1", "mode": "max", "stage": "finetune"}
    grid = {"space": {"alpha": [0.5]}, "sampler": "grid"}
    other = {**form, "name": "other", "trial": trial, "objective": objective, "search": grid, "prune": {}}
    run(other, tmp_path / "copy")
    control, *_ = trials_of(tmp_path / "copy", "other")
    assert control["key"] == trials_of(swept)[0]["key"]
    assert control["finetune"] != trials_of(swept)[0]["finetune"]
    assert control["objective"] == control["stages"]["finetune"]["validation"]["top1"]
    assert checkpoint.stat().st_mtime_ns == written


def rewritten(swept: Path, folder: Path, split: str) -> Path:
    """Copy the store with the order of all figures of `split` reversed and no sweep recorded."""
    shutil.copytree(swept, folder)
    shutil.rmtree(folder / "sweeps")
    for path in (folder / "trials").glob("*/epochs.jsonl"):
        rows = read_jsonl(path)
        for row in rows:
            if "evaluation" in row:
                figures = row["evaluation"][split]
                row["evaluation"][split] = {name: 1 / (1 + value) for name, value in figures.items()}
        write_jsonl(path, rows)
        # Results must agree with the rows; otherwise the trial would be made again.
        files = TrialFiles(path.parent)
        if result := files.result():
            write_json(files.result_file, {**result, "stages": files.stages()})
    return folder


def asked(folder: Path) -> list[tuple[Any, ...]]:
    return [(t["key"], json.dumps(t["params"]), t["state"], t["epochs"]) for t in trials_of(folder)]


def test_neither_search_nor_pruning_reads_the_test_list(swept: Path, form: dict[str, Any], tmp_path: Path) -> None:
    other = rewritten(swept, tmp_path / "test", "test")
    assert run(form, other).trained == 0
    assert asked(other) == asked(swept)
    # Changed figures of the list that they do read change the search, so the check above could have failed.
    misled = rewritten(swept, tmp_path / "validation", "validation")
    run(form, misled)
    assert asked(misled) != asked(swept)


def test_what_is_not_measured_cannot_be_the_objective(form: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    wrong = {**form, "objective": {"metric": "top1", "stage": "late"}, "prune": {"at": ["early"]}}
    without = {**form, "trial": {**form["trial"], "finetune": "none"}, "objective": {"stage": "finetune"}}
    searched = {**without, "objective": {}, "search": {**form["search"], "space": {"finetune.epochs": [1, 2]}}}
    both = {**without, "objective": {"metric": "pretext"}}
    both["search"] = {**form["search"], "blocks": {"loss.target": ["pretext", "action"]}}
    for changed, words in (
        (both, "objective.metric: pretext is not measured at stage late (allowed: knn,"),
        (wrong, "objective.metric: top1 is not measured at stage late (allowed: knn,"),
        (wrong, "prune.at.0: top1 is not measured at stage early"),
        (without, "`finetune` needs trial.finetune (allowed: early, late)"),
        (searched, "needs trial.finetune: either all trials are fine-tuned or none"),
    ):
        file.write_text(yaml.safe_dump(changed))
        with pytest.raises(ConfigError) as caught:
            load_sweep(file)
        assert words in str(caught.value)
