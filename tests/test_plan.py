"""What `plan` finds, resumes and starts, against trials that were really trained."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import SMALL_CLIP, run_python, stopped, train
from planned import knowing, last_lines, sweep_with

from kdtune.clips.frames.build import find_clips, prepare_clips
from kdtune.config.key import digest, identity
from kdtune.config.sections import ClipConfig, DataConfig
from kdtune.config.sweep import SweepConfig
from kdtune.plan.forecast import Forecast, look_ahead
from kdtune.plan.keys import Keys
from kdtune.plan.plan import plan
from kdtune.store import StoreFiles
from kdtune.store.files import write_json
from kdtune.sweep.group import TrialGroup, outcome_in_store
from kdtune.sweep.ledger import Ledger
from kdtune.sweep.scheduler import SweepScheduler
from kdtune.train.prepared import Prepared
from kdtune.train.session import Session


@pytest.fixture
def store(prepared: Session, tmp_path: Path) -> StoreFiles:
    return knowing(prepared, tmp_path / "runs")


def seen(sweep: SweepConfig, store: StoreFiles) -> Forecast:
    return look_ahead(sweep, store, Keys(Prepared(store)))


def run(sweep: SweepConfig, store: StoreFiles, prepared: Session) -> SweepScheduler:
    """Run the whole sweep in this process."""
    key_of = Session(store, dict(prepared.folders)).key
    scheduler = SweepScheduler(sweep, key_of, Ledger(store.sweep(sweep.name).ledger(sweep.ledger)))
    while (group := scheduler.next_to_train(store)) is not None:
        scheduler.finish(group, trained(group, sweep, store, prepared), cached=False)
    return scheduler


def trained(group: TrialGroup, sweep: SweepConfig, store: StoreFiles, prepared: Session) -> Any:
    for config in group.configs:
        train(config, store, prepared)
    outcome = outcome_in_store(group, sweep.objectives, store)
    assert outcome is not None
    return outcome


def listing(store: StoreFiles) -> dict[str, int]:
    """List every file except for the list of too short videos, which the first reader of a ClipStore writes."""
    files = [path for path in sorted(store.root.rglob("*")) if path.is_file() and "too_short" not in path.name]
    return {str(path): path.stat().st_mtime_ns for path in files}


def test_what_is_there_what_was_begun_and_what_is_not(
    sweep_form: dict[str, Any], prepared: Session, store: StoreFiles
) -> None:
    search = {"space": {"teacher": ["c3d"], "alpha": [0.25, 0.75]}, "sampler": "grid", "window": 1}
    sweep = sweep_with(sweep_form, search=search)
    (block,) = sweep.blocks()
    control = train(sweep.build(block, {"teacher": "none"}, 0), store, prepared)
    teacher = stopped(sweep.teacher("c3d", block), store, prepared, epoch=1)
    before = listing(store)
    forecast = seen(sweep, store)
    assert forecast.found == {control.key}
    assert [(work.name, work.done) for work in forecast.continued.values()] == [("teacher c3d", 1)]
    assert set(forecast.continued) == {teacher.key}
    # With a window of one, the second point of the grid is asked later, but it is already known.
    assert [(work.name, work.done) for work in forecast.new.values()] == [
        ("all · candidate 0", 0),
        ("all · candidate 1", 0),
    ]
    assert (forecast.unasked, forecast.trials) == (0, 3)
    said = last_lines(plan(sweep, store))
    assert said[0] == "in the store 1 found, 1 continued, 2 new"
    assert said[1] == "               teacher c3d: 1 of 2 epochs"
    assert said[2].startswith("to train     3 trials: about ")
    assert listing(store) == before, "looking ahead writes nothing"


@pytest.mark.slow
def test_a_sweep_of_another_name_finds_the_trials_that_it_shares(
    sweep_form: dict[str, Any], prepared: Session, store: StoreFiles
) -> None:
    space = {"alpha": {"range": [0.1, 1.0]}}
    search = {"space": space, "sampler": "random", "candidates": 3, "window": 2}
    first = run(sweep_with(sweep_form, name="first", search=search), store, prepared)
    assert len(first.groups) == 4
    shared = {key for group in first.groups.values() for key in group.asked.keys}

    longer = sweep_with(sweep_form, name="longer", search={**search, "candidates": 7})
    forecast = seen(longer, store)
    assert forecast.found == shared
    # Candidates 3 and 4 can be asked, because 1 and 2 have ended; 5 and 6 cannot.
    assert [work.name for work in forecast.new.values()] == ["all · candidate 3", "all · candidate 4"]
    assert (forecast.unasked, forecast.trials) == (2, 4)
    assert last_lines(plan(longer, store))[0] == (
        "in the store 4 found, 0 continued, 2 new, 2 still to be asked, when others have ended"
    )
    assert not store.sweep("longer").folder.exists()

    # One more epoch: the same candidates, but other trials. One more control: everything else is found.
    form = {**sweep_form, "trial": {**sweep_form["trial"], "epochs": 3, "stages": {"late": 3}}}
    assert not seen(sweep_with(form, search=search), store).found
    more = sweep_with(sweep_form, search={**search, "controls": [{"teacher": "none"}, {"alpha": 0.0}]})
    forecast = seen(more, store)
    assert forecast.found == shared
    assert [work.name for work in forecast.new.values()] == ["all · control 1"]

    # The plan has asked what the sweep then asks.
    expected = set(seen(longer, store).new)
    again = run(longer, store, prepared)
    assert expected <= {key for group in again.groups.values() for key in group.asked.keys}
    assert last_lines(plan(longer, store)) == ["in the store 8 found, 0 continued, 0 new", "to train     nothing"]


def test_fine_tunings_are_trials(sweep_form: dict[str, Any], prepared: Session, store: StoreFiles) -> None:
    finetune = {"epochs": 1, "optimizer": {"lr": 0.01}}
    search = {"space": {"alpha": [0.25, 0.75]}, "sampler": "grid"}
    sweep = sweep_with(sweep_form, trial={**sweep_form["trial"], "finetune": finetune}, search=search)
    control = sweep.build(sweep.blocks()[0], {"teacher": "none"}, 0)
    pretrained = train(control, store, prepared)
    forecast = seen(sweep, store)
    assert forecast.found == {pretrained.key}
    assert [work.name for work in forecast.new.values()] == [
        "all · control, fine-tuning",
        "all · candidate 0",
        "all · candidate 0, fine-tuning",
        "all · candidate 1",
        "all · candidate 1, fine-tuning",
    ]
    assert any(
        line == "trials       6 = 0 teachers + 1 controls + 2 candidates × 1 seed + 3 fine-tunings"
        for line in plan(sweep, store)
    )


def test_a_pruned_candidate_is_found(sweep_form: dict[str, Any], prepared: Session, store: StoreFiles) -> None:
    space = {"optimizer.lr": {"log": [1e-3, 1e-1]}}
    search = {"space": space, "sampler": "random", "candidates": 5, "window": 1}
    prune = {**sweep_form["prune"], "keep": 0.2, "min_peers": 1}  # a candidate that is not the best so far
    sweep = SweepConfig.model_validate({**sweep_form, "search": search, "prune": prune})
    scheduler = run(sweep, store, prepared)
    states = Counter(group.state for group in scheduler.history.groups.values())
    assert states["complete"] + states["pruned"] == 6
    assert states["pruned"] > 0
    forecast = seen(sweep, store)
    assert (len(forecast.found), forecast.trials) == (6, 0)


def test_data_that_are_not_prepared_or_have_changed_are_named(
    sweep_form: dict[str, Any], videos: Path, prepared: Session, store: StoreFiles, tmp_path: Path
) -> None:
    search = {"space": {"alpha": {"range": [0.1, 1.0]}}, "sampler": "random", "candidates": 3}
    sweep = sweep_with(sweep_form, search=search)
    train(sweep.build(sweep.blocks()[0], {"teacher": "none"}, 0), store, prepared)
    assert len(seen(sweep, store).found) == 1
    copy = tmp_path / "videos"
    shutil.copytree(videos, copy)
    trial = sweep_form["trial"]
    moved = sweep_with(sweep_form, trial={**trial, "data": {**trial["data"], "root": str(copy)}}, search=search)
    said = last_lines(plan(moved, store))
    assert said[0] == f"in the store {copy} is not prepared, or was changed since: no trial on it can be found"
    assert said[1] == "             0 found, 0 continued, 1 new, 3 still to be asked, when others have ended"
    assert said[2].startswith("to train     at most 4 trials; `plan --measure` says")
    # Prepared there, the trial is found: the videos are the same.
    prepare_clips(moved.trial.data, moved.trial.clip, store)
    assert len(seen(moved, store).found) == 1


def test_clips_are_found_by_the_records_alone(
    eight_videos: Path, tmp_path: Path, decodes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, store = tmp_path / "set", StoreFiles(tmp_path / "runs")
    shutil.copytree(eight_videos, root)
    data = DataConfig(dataset="synthetic", root=str(root))
    assert find_clips(data, SMALL_CLIP, store) is None
    assert not store.root.exists()
    made = prepare_clips(data, SMALL_CLIP, store)
    decodes.clear()
    before = listing(store)
    monkeypatch.setattr("hashlib.file_digest", None)
    found = find_clips(data, SMALL_CLIP, store)
    assert found is not None
    assert found.folder == made.folder
    assert find_clips(data, ClipConfig(frames=8, size=64), store) is None
    video = next(root.rglob("*.mp4"))
    os.utime(video, ns=(1, 1))
    assert find_clips(data, SMALL_CLIP, store) is None, "it may be another video now"
    video.unlink()
    assert find_clips(data, SMALL_CLIP, store) is None
    assert (listing(store), decodes) == (before, [])


def test_plan_imports_optuna_only_where_trials_may_be_found(
    sweep_form: dict[str, Any], store: StoreFiles, sweep_file: Path
) -> None:
    sweep = SweepConfig.model_validate(sweep_form)
    on_other_data = identity(sweep.build(sweep.blocks()[0], {"teacher": "none"}, 0), lambda _: "other videos")
    write_json(store.trial(digest(on_other_data)).config, on_other_data)
    code = f"""
import sys
from kdtune.cli import main
assert main(["plan", {str(sweep_file)!r}, "--store", {str(store.root)!r}]) == 0
print([name for name in ("torch", "ray", "mlflow", "optuna") if name in sys.modules])
"""
    said = run_python(code).stdout.splitlines()
    assert said[-1] == "[]"
    assert "in the store 0 found, 0 continued, 4 new, 8 still to be asked, when others have ended" in said
