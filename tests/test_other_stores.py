"""Trials of other stores (teacher import FOLDER), the list of possible teachers, and imported weights in use."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import run_python, train
from published_networks import base_network, config, pretrained, refusal, saved

from kdtune.cli import main
from kdtune.config.key import TRAINER_SEMANTICS, digest, trial_key
from kdtune.config.trial import TrialConfig
from kdtune.report.teachers import teacher_rows, teacher_table
from kdtune.store import StoreFiles, TrialFiles
from kdtune.store.files import read_json, write_json
from kdtune.store.seal import sealed
from kdtune.train.checkpoint import content_digest, final_weights, read_checkpoint
from kdtune.train.importing.imports import Imported, import_checkpoint, import_trial, yaml_lines
from kdtune.train.session import Session

CLIP, SHORT = {"frames": 8, "size": 24}, {"epochs": 1, "stages": {"late": 1}}
Trained, Published, Taught = dict[bool, TrialFiles], dict[str, Imported], tuple[TrialConfig, TrialFiles]


@pytest.fixture(scope="module")
def trained(trial_form: dict[str, Any], prepared: Session, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two trials with action heads; the second keeps its best weights, and its last weights are different."""
    store, form = (
        StoreFiles(tmp_path_factory.mktemp("elsewhere")),
        {**trial_form, **SHORT, "loss": {"target": "action"}},
    )
    forms = (TrialConfig.model_validate({**form, "stage": {"weights": weights}}) for weights in ("last", "best"))
    last, best = (train(each, store, prepared) for each in forms)
    spoil(best)
    return {False: last, True: best}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """PCL's c3d and r3d, imported into one store."""
    folder = tmp_path_factory.mktemp("published")
    files = {name: saved(folder, pretrained(name).state_dict(), f"{name}.pt") for name in ("c3d", "r3d")}
    return {name: import_checkpoint(file, config(name, clip=CLIP), StoreFiles(folder)) for name, file in files.items()}


@pytest.fixture(scope="module")
def taught(trial_form: dict[str, Any], published: Published, prepared: Session) -> Taught:
    """An r3d that started from PCL's r3d and learned from PCL's c3d, both named as in the printed lines."""
    raw = yaml.safe_load("\n".join(yaml_lines(found, config(n, clip=CLIP), n) for n, found in published.items()))
    loss, slow = {**trial_form["loss"], "lambda": 1.0, "beta": 1.0, "gamma": 1.0}, {"lr": 1e-9}
    form = {**trial_form, **SHORT, "loss": loss, "optimizer": slow, "teacher": raw["c3d"], "start": raw["r3d"]}
    own = TrialConfig.model_validate(form)
    return own, train(own, StoreFiles(published["c3d"].files.folder.parents[1]), prepared)


def copied(files: TrialFiles, folder: Path, **fields: Any) -> TrialFiles:
    """Copy a trial, to break it. Other `fields` in its configuration change its name."""
    form = read_json(files.config) | fields
    copy = TrialFiles(shutil.copytree(files.folder, folder / digest(form)))
    write_json(copy.config, form)
    return copy


def spoil(files: TrialFiles) -> None:
    parts = read_checkpoint(files.checkpoint)
    parts["network"]["head.bias"][0] += 1e-3
    torch.save({**parts, "sha256": content_digest(parts)}, files.checkpoint)


def begin(files: TrialFiles) -> None:
    """Leave what an interrupted training leaves."""
    files.write_failure("out of memory")
    write_json(files.config, {})


def held(store: StoreFiles) -> dict[str, bytes | None]:
    """Return every file and folder below trials/."""
    trials = store.root / "trials"
    return {str(p.relative_to(trials)): p.read_bytes() if p.is_file() else None for p in trials.rglob("*")}


def bring(files: TrialFiles, store: StoreFiles) -> None:
    """Import a trial. The store must then hold this trial, whole, and nothing else."""
    assert import_trial(files.folder, store) == files.key
    wanted = {f"{files.key}/{p.name}": p.read_bytes() for p in files.folder.iterdir() if p.name != "failure.json"}
    assert held(store) == {files.key: None, **wanted}


def refused(folder: Path, store: StoreFiles) -> str:
    """Return why a trial is not imported; nothing may be written."""
    before, said = held(store), refusal(lambda: import_trial(folder, store))
    assert (str(folder) in said, held(store)) == (True, before)
    return said


@pytest.mark.parametrize("best", [False, True])
def test_a_trial_comes_whole_and_once(best: bool, trained: Trained, tmp_path: Path, store: StoreFiles) -> None:
    source = copied(trained[best], tmp_path)
    source.write_failure("of an attempt before")
    assert (read_checkpoint(source.checkpoint)["best"] is not None) is best
    bring(source, store)
    before = held(store)
    assert {f"{source.key}/{name}" for name in ("epochs.jsonl", "classes_late.json")} < set(before)
    source.epochs.unlink()  # nothing is imported twice
    assert import_trial(source.folder, store) == import_trial(store.trial(source.key).folder, store) == source.key
    assert held(store) == before


WAYS: dict[str, tuple[Any, str]] = {
    "NaN": (
        lambda f: f.config.write_text(sealed(json.dumps(read_json(f.config) | {"data": math.nan}))),
        "it hashes to nothing",
    ),
    "a list of weights": (
        lambda f: torch.save({"network": [torch.ones(2)]}, f.checkpoint),
        "is not a trial's checkpoint",
    ),
    "a list": (lambda f: (f.folder / "result.json").write_text("[1]"), "result.json: is damaged: holds a list"),
    "another config": (lambda f: write_json(f.config, read_json(f.config) | {"data": "0"}), "it hashes to "),
    "no checkpoint": (lambda f: f.checkpoint.unlink(), "is not a complete trial: checkpoint.pt is missing"),
    "no digest": (lambda f: f.write_result({}), "result.json: names no weights_sha256"),
    "no result": (lambda f: (f.folder / "result.json").unlink(), "is not a complete trial: result.json is missing"),
    "nothing": (lambda f: [p.unlink() for p in f.folder.iterdir()], "checkpoint.pt, result.json are missing"),
    "other weights": (spoil, "checkpoint.pt: holds weights with SHA-256 "),
    "torn": (
        lambda f: f.checkpoint.write_bytes(f.checkpoint.read_bytes()[:-5000]),
        "checkpoint.pt: the checkpoint cannot be",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_broken_trial_is_refused(way: str, trained: Trained, tmp_path: Path, store: StoreFiles) -> None:
    source, (break_it, words) = copied(trained[False], tmp_path), WAYS[way]
    break_it(source)
    assert words in refused(source.folder, store)
    begin(store.trial(source.key))
    assert words in refused(source.folder, store)


def test_a_complete_trial_takes_the_place_of_one_that_was_only_begun(trained: Trained, store: StoreFiles) -> None:
    begin(store.trial(trained[False].key))
    bring(trained[False], store)


def test_a_trial_that_is_here_stays(trained: Trained, store: StoreFiles) -> None:
    import_trial(trained[False].folder, store)
    here = store.trial(trained[False].key)
    here.write_result({**(here.result() or {}), "weights_sha256": "0" * 64})
    assert "is in the store already, with other weights" in refused(trained[False].folder, store)


def test_a_trial_of_another_trainer_is_refused(trained: Trained, tmp_path: Path, store: StoreFiles) -> None:
    older = copied(trained[False], tmp_path, semantics=1)
    assert f"by semantics 1 of the trainer (allowed: {TRAINER_SEMANTICS})" in refused(older.folder, store)


def test_an_interrupted_import(trained: Trained, store: StoreFiles) -> None:
    for name in ("import", "replaced"):
        leftover = shutil.copytree(trained[False].folder, store.trial(f".{trained[False].key}.{name}").folder)
        (leftover / "classes_early.json").touch()
    assert teacher_rows(store) == []
    bring(trained[False], store)


def test_what_is_no_folder_is_refused(tmp_path: Path, store: StoreFiles) -> None:
    assert "is not a trial's folder" in refused(tmp_path / "absent", store)
    assert "is not a trial's folder" in refused(saved(tmp_path, {}), store)


def test_imported_weights_travel_as_trials_do(published: Published, store: StoreFiles) -> None:
    bring(published["c3d"].files, store)


def test_imported_weights_that_are_not_the_named_ones_are_refused(published: Published, store: StoreFiles) -> None:
    sha256, named = published["c3d"].imported, copied(published["c3d"].files, store.root, imported="0" * 32)
    assert f"names the weights {'0' * 32}, the result {sha256}" in refused(named.folder, store)
    named.write_result({**(named.result() or {}), "weights_sha256": "0" * 64})  # now result and name agree
    assert f"holds weights with SHA-256 {sha256}" in refused(named.folder, store)


def test_imported_weights_at_work(taught: Taught, published: Published, prepared: Session, store: StoreFiles) -> None:
    own, files = taught
    assert Session(StoreFiles(files.folder.parents[1]), dict(prepared.folders)).problems(own) == []
    assert all(files.rows()[0]["train"][term] > 0 for term in ("distill", "relations", "features"))
    # The student's backbone is PCL's r3d; its heads are fresh.
    ended, began = final_weights(files.checkpoint), final_weights(published["r3d"].files.checkpoint)
    for name in (name for name in began if name.endswith((".weight", ".bias"))):
        assert torch.allclose(ended[name], began[name], rtol=1e-4, atol=1e-6) is name.startswith("backbone.")
    bring(files, store)
    train(own, store, prepared)
    bring(files, store)  # found, not trained again
    assert teacher_table(teacher_rows(store)).endswith(f"{published['c3d'].key[:12]}  {published['r3d'].key[:12]}")


def test_the_list_says_what_each_trial_is_and_where_it_came_from(
    trained: Trained, taught: Taught, published: Published, tmp_path: Path, store: StoreFiles
) -> None:
    begin(store.trial("f" * 32))
    assert teacher_table(teacher_rows(store)) == "no trial in the store is complete yet"
    action, c3d, r3d = trained[False], published["c3d"], published["r3d"]
    for files in (action, taught[1], c3d.files):
        import_trial(files.folder, store)
    base = saved(tmp_path, base_network("r21d").state_dict(), "base.pt")
    bare = import_checkpoint(base, config("r21d", loss={"target": "action"}), store)
    rows = teacher_rows(store)
    columns = ("key", "network", "target", "size", "dataset", "fraction", "epochs", "source", "teacher", "start")
    assert [tuple(row[name] for name in columns) for row in rows] == [
        (bare.key, "r21d-10 w4", "action", 16, None, None, 0, "imported: base.pt", None, None),
        (action.key, "r3d-10 w4", "action", 24, "synthetic", 1.0, 1, "trained", None, None),
        (c3d.key, "c3d w4", "pretext", 24, None, None, 0, "imported: c3d.pt", None, None),
        (taught[1].key, "r3d-10 w4", "pretext", 24, "synthetic", 1.0, 1, "trained", c3d.key, r3d.key),
    ]
    assert rows[1]["top1"] == action.stages()["late"]["validation"]["top1"]
    rows[1] |= {"knn": 0.25, "best_knn": 0.5, "top1": 0.75, "best_top1": 0.75, "fraction": 0.25}
    heads, _, *lines = teacher_table(rows).splitlines()
    assert heads.split()[5:] == ["epochs", "pretext", "knn", "top1", "source", "teacher", "start"]
    cells = [[cell.strip() for cell in line.split("  ") if cell] for line in lines]
    assert cells[0][3:] == ["8 × 16²", "–", "0", "–", "–", "–", "imported: base.pt (backbone only)", "–", "–"]
    assert cells[1][4:9] == ["synthetic 0.25", "1", "–", "0.250 (best 0.500)", "0.750"]
    assert "teacher" not in teacher_table(rows[:3]), "no empty columns"


def test_trials_of_an_earlier_trainer_are_not_listed(trained: Trained, published: Published, store: StoreFiles) -> None:
    copied(trained[False], store.root / "trials", semantics=1)
    import_trial(published["c3d"].files.folder, store)
    assert [row["key"] for row in teacher_rows(store)] == [published["c3d"].key], "no trainer made that one"


def test_broken_records_are_named(trained: Trained, store: StoreFiles, capsys: pytest.CaptureFixture[str]) -> None:
    import_trial(trained[False].folder, store)
    broken = [copied(trained[False], store.root / "trials", broken=number) for number in range(3)]
    broken[0].write_result({"stages": 3})
    (broken[1].folder / "result.json").write_text("{")
    broken[2].config.write_text("[]")
    assert [row["key"] for row in teacher_rows(store)] == [trained[False].key], "a damaged trial hides no other"
    said = capsys.readouterr().err
    assert all(str(files.folder) in said for files in broken)


def test_the_list_needs_no_torch(trained: Trained) -> None:
    command = ["teacher", "list", "--store", str(trained[False].folder.parents[1])]
    code = f"import sys, kdtune.cli; kdtune.cli.main({command!r}); print('torch' in sys.modules)"
    *table, loaded = run_python(code).stdout.splitlines()
    assert (len(table), loaded) == (2 + len(trained), "False")


def test_the_commands(tmp_path: Path, store: StoreFiles, capsys: pytest.CaptureFixture[str]) -> None:
    def teacher(*arguments: str | Path, code: int = 0, into: StoreFiles = store) -> tuple[str, str]:
        assert main(["teacher", *map(str, arguments), "--store", str(into.root)]) == code
        return capsys.readouterr()

    bad, file = saved(tmp_path, {}, "bad.pt"), saved(tmp_path, pretrained("c3d").state_dict())
    for source, words in ((bad, "holds no state dict"), (tmp_path, "is not a complete trial")):
        out, said = teacher("import", source, code=2)
        assert (out, said.startswith(f"kdtune: 1 problem\n  {source}: {words}")) == ("", True)
    assert held(store) == {}
    says = ("student.backbone=c3d", "student.width=4", "clip.frames=8", "clip.size=24")
    raw = yaml.safe_load(teacher("import", file, "--name", "pcl", *(f"--set={each}" for each in says))[0])["pcl"]
    key = trial_key(TrialConfig.model_validate(raw), lambda _: "")
    assert "imported: best_model_196.pt" in teacher("list")[0]
    other = StoreFiles(tmp_path / "other")
    assert teacher("import", store.trial(key).folder, into=other)[0] == f"{key}\n"
    assert teacher("list", into=other) == teacher("list")
