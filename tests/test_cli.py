"""The command line as a user sees it: exit codes and output, of real processes where the process matters."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from databases import empty_database
from helpers import ROOT, SHARED, fill_disk, kdtune, kdtune_here, link_clips, refused

from kdtune.clips.machine import cores
from kdtune.config.metrics import OF_COST
from kdtune.train.session import Session


def write(path: Path, form: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(form, sort_keys=False))
    return str(path)


@pytest.mark.parametrize("file", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda file: file.name)
def test_every_shipped_sweep_is_explained_without_its_data(file: Path, tmp_path: Path) -> None:
    done = kdtune_here("plan", str(file), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("blocks", "candidates", "trials", "teachers"):
        assert word in done.stdout


def test_the_paper_plan_has_its_nine_rows_at_four_fractions(tmp_path: Path) -> None:
    done = kdtune_here("plan", str(ROOT / "sweeps" / "paper.yaml"), cwd=tmp_path)
    assert "12 controls + 24 candidates" in done.stdout  # 3 students × 4 fractions × (1 scratch + 2 teachers)
    assert "student=r3d fraction=0.02" in done.stdout
    assert "36 fine-tunings" in done.stdout
    assert f"and {36 * 150:,}.0 of fine-tuning on hmdb51" in done.stdout


def test_the_shipped_schema_is_the_printed_one() -> None:
    done = kdtune_here("schema")
    assert json.loads(done.stdout) == json.loads((ROOT / "sweeps" / "schema.json").read_text())


def test_all_problems_of_a_bad_sweep_come_in_one_message(sweep_form: dict[str, Any], tmp_path: Path) -> None:
    form = json.loads(json.dumps(sweep_form))
    form["trial"]["loss"] = {"lambda": -1, "tau": 0}
    form["trial"]["data"]["fractoin"] = 0.5
    form["trial"]["stages"] = {"early": 2, "late": 1}
    form["search"]["space"]["teacher"] = ["c3d", "r12d"]
    form["search"]["blocks"] = {"fraction": [1.5]}
    said = refused(kdtune_here("sweep", write(tmp_path / "bad.yaml", form), store=tmp_path / "runs"))
    for words in (
        "did you mean fraction?",
        "trial.loss.lambda: should be greater than or equal to 0, got -1",
        "trial.loss.tau: should be greater than 0, got 0",
        "stages must name rising epochs",
        "unknown teacher, got 'r12d' (allowed: none, c3d, r21d)",
        "search.blocks.fraction: should be less than or equal to 1, got 1.5",
    ):
        assert words in said
    assert said.startswith("kdtune: 6 problems")
    assert not (tmp_path / "runs").exists(), "nothing ran"


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["data.dataset=ucf101", "data.root=nowhere", "resources.cpu=4096"], "2 problems"),
        (["clip.frames=60"], "the longest has"),
        (["resources.cpu=4000"], "a trial asks for 4000"),
        (["teacher=c3d"], "search.space"),
        (["lamda=1"], "did you mean lambda?"),
    ],
    ids=[
        "missing data root and GPU",
        "clips longer than any video",
        "too many cores",
        "a teacher outside the search",
        "misspelt",
    ],
)
def test_bad_input_is_refused_before_ray_starts(
    sweep_file: Path, prepared: Session, tmp_path: Path, sets: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdtune.execute.ray_tune.RayTune.run", lambda *_: pytest.fail("Ray would start"))
    link_clips(prepared.store.root, tmp_path / "runs")
    options = [part for text in sets for part in ("--set", text)]
    said = refused(kdtune_here("sweep", str(sweep_file), *options, store=tmp_path / "runs"))
    assert words in said
    assert not list((tmp_path / "runs").glob("trials/*"))


def test_an_empty_class_is_refused(videos: Path, trial_form: dict[str, Any], tmp_path: Path) -> None:
    root = tmp_path / "folder"
    (root / "Empty").mkdir(parents=True)
    for action in ("Rise", "Shake"):
        (root / action).symlink_to(videos / action)
    form = {**trial_form, "data": {"dataset": "folder", "root": str(root)}}
    said = refused(kdtune_here("train", write(tmp_path / "trial.yaml", form), store=tmp_path / "runs"))
    assert "Empty" in said


def test_train_prints_its_result_and_logs_a_run(trial_form: dict[str, Any], prepared: Session, tmp_path: Path) -> None:
    file = write(tmp_path / "trial.yaml", {**trial_form, "epochs": 1, "stages": {"late": 1}})
    store = tmp_path / "runs"
    link_clips(prepared.store.root, store)
    empty_database(store / "mlflow.db")
    done = kdtune_here("train", file, store=store)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["weights_sha256"]) == 64
    assert result["profile"]["threads"] == 1
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'train'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["kdtune.key"] == result["key"]
    assert run.data.metrics["late/validation/knn"] == result["stages"]["late"]["validation"]["knn"]


def test_a_sweep_on_this_machine_ends_with_a_table_to_paste(
    sweep_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    """The whole command with its own Ray, then every format of its results. One worker at a time: each start counts."""
    search = {"space": {"alpha": [0.3]}, "sampler": "grid"}
    form = {**sweep_form, "name": "whole", "search": search, "prune": {}, "objective": {"metric": "knn"}}
    form["teachers"] = {}
    form["resources"] = {"cpu": cores()}
    store = tmp_path / "runs"
    link_clips(prepared.store.root, store)
    done = kdtune("sweep", write(tmp_path / "whole.yaml", form), store=store)
    assert done.returncode == 0, done.stderr
    for words in (
        "all: k-NN accuracy on validation (majority baseline 0.250)",
        "control",
        "-m kdtune ui",
        "2 trials trained",
    ):
        assert words in done.stdout
    results = json.loads(kdtune_here("results", "whole", "--format", "json", store=store).stdout)
    assert set(results) == {"sweep", "answer", "trials", "best"}
    assert " ".join(done.stdout.split("\n\n")[-1].split()) == results["answer"]
    expected = [
        "key",
        "candidate",
        "block",
        "control",
        "seed",
        "params",
        "state",
        "epochs",
        "stages",
        "objective",
        "weights_sha256",
        "seconds",
        "cached",
        "cost",
        "profile",
        "mlflow_run_id",
        "error",
    ]
    for trial in results["trials"]:
        assert list(trial) == expected
        assert list(trial["params"]) == ["student", "teacher", "lambda", "tau", "alpha", "fraction"]
        assert trial["mlflow_run_id"]
        assert tuple(trial["cost"]) == OF_COST
    rows = list(csv.DictReader(io.StringIO(kdtune_here("results", "whole", "--format", "csv", store=store).stdout)))
    assert [row["key"] for row in rows] == [trial["key"] for trial in results["trials"]]
    assert float(rows[0]["late.validation.knn"]) == results["trials"][0]["stages"]["late"]["validation"]["knn"]
    assert "| control" in kdtune_here("results", "whole", "--format", "markdown", store=store).stdout
    assert "\\begin{tabular}" in kdtune_here("results", "whole", "--format", "latex", store=store).stdout
    assert "no sweep named 'hole'" in refused(kdtune_here("results", "hole", store=store))


def test_data_commands_make_prepare_and_verify(tmp_path: Path) -> None:
    root, store = tmp_path / "set", tmp_path / "runs"
    made = kdtune_here("data", "synth", str(root), "--groups", "2", "--clips", "1")
    assert made.returncode == 0, made.stderr
    form = {"data": {"dataset": "synthetic", "root": str(root)}, "clip": {"frames": 8, "size": 32}}
    prepared = kdtune_here("data", "prepare", write(tmp_path / "trial.yaml", form), store=store)
    assert prepared.returncode == 0, prepared.stderr
    assert "refused    unknown, like videos that are too short, until" in prepared.stdout
    assert f"refused    none, and no video is too short (synthetic in {root})" in prepared.stdout
    assert "1 clip stores checked, 0 problems" in kdtune_here("data", "verify", store=store).stdout
    (frames,) = store.glob("clips/*/frames.u8")
    # Two more files beside finished stores: the list of a refused build, and a store in the making.
    frames.parent.with_name("other.refused.csv").touch()
    frames.parent.with_name(".other.making").mkdir()
    assert "1 clip stores checked, 0 problems" in kdtune_here("data", "verify", store=store).stdout
    with frames.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    damaged = kdtune_here("data", "verify", store=store)
    assert damaged.returncode == 1
    assert "have changed" in damaged.stdout
    mended = kdtune_here("data", "prepare", str(tmp_path / "trial.yaml"), store=store)
    assert (mended.returncode, mended.stdout) == (0, prepared.stdout)
    assert "1 of 16 videos are damaged and decoded again" in mended.stderr
    assert "0 problems" in kdtune_here("data", "verify", store=store).stdout


def test_a_full_disk_is_one_plain_line(videos: Path, small_disk: Path, tmp_path: Path) -> None:
    form = {"data": {"dataset": "synthetic", "root": str(videos)}, "clip": {"frames": 8, "size": 32}}
    (small_disk / "runs").mkdir()
    fill_disk(small_disk, leave=0)
    said = refused(kdtune_here("data", "prepare", write(tmp_path / "trial.yaml", form), store=small_disk / "runs"))
    assert said.startswith(f"kdtune: the disk is full: {small_disk / 'runs'}")
    assert said.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real clips of ../shared are not here")
def test_real_clips_with_two_teachers(sweep_form: dict[str, Any], tmp_path: Path) -> None:
    """Surveillance clips with source videos as groups, through the same command."""
    form = json.loads(json.dumps(sweep_form))
    form |= {"name": "fight", "objective": {"metric": "linear"}, "prune": {}}
    form["trial"]["data"] = {"dataset": "folder", "root": str(SHARED / "clips" / "fight")}
    form["search"] = {"space": {"teacher": ["c3d", "r21d"]}, "sampler": "grid"}
    done = kdtune("sweep", write(tmp_path / "fight.yaml", form), store=tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert "107 videos" in done.stderr
    results = json.loads(kdtune("results", "fight", "--format", "json", store=tmp_path / "runs").stdout)
    assert [trial["state"] for trial in results["trials"]] == ["complete"] * 3
