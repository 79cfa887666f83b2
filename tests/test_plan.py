"""`plan`: what is found, continued and new, and what that costs, against trials that were really trained."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import run_python, stopped, train

from kdtune.cli import main
from kdtune.clips.build import find_clips, prepare_clips
from kdtune.clips.dataset import TrialData
from kdtune.clips.machine import processor
from kdtune.config.key import digest, identity
from kdtune.config.sections import ClipConfig, DataConfig
from kdtune.config.sweep import SweepConfig
from kdtune.files import read_json, write_json, write_jsonl
from kdtune.store import Store, TrialFiles
from kdtune.sweep.campaign import Campaign
from kdtune.sweep.costs import Cost, cost_of, side_by_side
from kdtune.sweep.job import Job, outcome_in_store
from kdtune.sweep.keys import Keys
from kdtune.sweep.ledger import Ledger
from kdtune.sweep.outlook import Outlook, look_ahead
from kdtune.sweep.plan import duration, plan
from kdtune.sweep.speeds import Scopes, Speeds
from kdtune.train.prepared import Prepared
from kdtune.train.session import Session

SMALL_CLIP = ClipConfig(frames=8, size=32)


@pytest.fixture
def store(prepared: Session, tmp_path: Path) -> Store:
    """A store that knows the tiny data set and nothing else."""
    for part in ("clips", "manifests"):
        shutil.copytree(prepared.store.root / part, tmp_path / "runs" / part)
    return Store(tmp_path / "runs")


def sweep_with(form: dict[str, Any], **sections: Any) -> SweepConfig:
    return SweepConfig.model_validate({**form, "prune": {}, **sections})


def seen(sweep: SweepConfig, store: Store) -> Outlook:
    return look_ahead(sweep, store, Keys(Prepared(store)))


def cost(sweep: SweepConfig, store: Store) -> Cost:
    keys = Keys(Prepared(store))
    outlook = look_ahead(sweep, store, keys)
    scopes = Scopes(keys.prepared)
    return cost_of(outlook.works, Speeds(store, keys.identities, scopes, "cpu"), scopes)


def run(sweep: SweepConfig, store: Store, prepared: Session) -> Campaign:
    """The whole sweep, in this process."""
    key_of = Session(store, dict(prepared.folders)).key
    campaign = Campaign(sweep, key_of, Ledger(store.sweep(sweep.name).ledger(sweep.ledger)))
    while (job := campaign.next_to_train(store)) is not None:
        campaign.finish(job, trained(job, sweep, store, prepared), cached=False)
    return campaign


def trained(job: Job, sweep: SweepConfig, store: Store, prepared: Session) -> Any:
    for config in job.configs:
        train(config, store, prepared)
    outcome = outcome_in_store(job, sweep.objectives, store)
    assert outcome is not None
    return outcome


def listing(store: Store) -> dict[str, int]:
    """Every file, but for the list of too short videos that whoever first looks at a ClipStore leaves."""
    files = [path for path in sorted(store.root.rglob("*")) if path.is_file() and "too_short" not in path.name]
    return {str(path): path.stat().st_mtime_ns for path in files}


def last_lines(said: Iterator[str] | list[str]) -> list[str]:
    lines = list(said)
    return lines[next(i for i, line in enumerate(lines) if line.startswith("in the store")) :]


# ---- what is found ---------------------------------------------------------------------------------------------------


def test_what_is_there_what_was_begun_and_what_is_not(
    sweep_form: dict[str, Any], prepared: Session, store: Store
) -> None:
    search = {"space": {"teacher": ["c3d"], "alpha": [0.25, 0.75]}, "sampler": "grid", "window": 1}
    sweep = sweep_with(sweep_form, search=search)
    (block,) = sweep.blocks()
    control = train(sweep.build(block, {"teacher": "none"}, 0), store, prepared)
    teacher = stopped(sweep.teacher("c3d", block), store, prepared, epoch=1)
    before = listing(store)
    outlook = seen(sweep, store)
    assert outlook.found == {control.key}
    assert [(work.name, work.done) for work in outlook.continued.values()] == [("teacher c3d", 1)]
    assert set(outlook.continued) == {teacher.key}
    # With a window of one the second point of the grid is asked later, but it is known.
    assert [(work.name, work.done) for work in outlook.new.values()] == [
        ("all · candidate 0", 0),
        ("all · candidate 1", 0),
    ]
    assert (outlook.unasked, outlook.trials) == (0, 3)
    said = last_lines(plan(sweep, store))
    assert said[0] == "in the store 1 found, 1 continued, 2 new"
    assert said[1] == "               teacher c3d: 1 of 2 epochs"
    assert said[2].startswith("to train     3 trials: about ")
    assert listing(store) == before, "looking ahead writes nothing"


def test_a_sweep_of_another_name_finds_the_trials_that_it_shares(
    sweep_form: dict[str, Any], prepared: Session, store: Store
) -> None:
    space = {"alpha": {"range": [0.1, 1.0]}}
    search = {"space": space, "sampler": "random", "candidates": 3, "window": 2}
    first = run(sweep_with(sweep_form, name="first", search=search), store, prepared)
    assert len(first.jobs) == 4
    shared = {key for job in first.jobs.values() for key in job.keys}

    longer = sweep_with(sweep_form, name="longer", search={**search, "candidates": 7})
    outlook = seen(longer, store)
    assert outlook.found == shared
    # Candidates 3 and 4 can be asked, for 1 and 2 have ended; 5 and 6 cannot.
    assert [work.name for work in outlook.new.values()] == ["all · candidate 3", "all · candidate 4"]
    assert (outlook.unasked, outlook.trials) == (2, 4)
    assert last_lines(plan(longer, store))[0] == (
        "in the store 4 found, 0 continued, 2 new, 2 still to be asked, when others have ended"
    )
    assert not store.sweep("longer").folder.exists()

    # One more epoch: the same candidates, but other trials. One more control: everything else is there.
    form = {**sweep_form, "trial": {**sweep_form["trial"], "epochs": 3, "stages": {"late": 3}}}
    assert not seen(sweep_with(form, search=search), store).found
    more = sweep_with(sweep_form, search={**search, "controls": [{"teacher": "none"}, {"alpha": 0.0}]})
    outlook = seen(more, store)
    assert outlook.found == shared
    assert [work.name for work in outlook.new.values()] == ["all · control 1"]

    # The look ahead has asked what the sweep then asks.
    expected = set(seen(longer, store).new)
    again = run(longer, store, prepared)
    assert expected <= {key for job in again.jobs.values() for key in job.keys}
    assert last_lines(plan(longer, store)) == ["in the store 8 found, 0 continued, 0 new", "to train     nothing"]


def test_fine_tunings_are_trials(sweep_form: dict[str, Any], prepared: Session, store: Store) -> None:
    finetune = {"epochs": 1, "optimizer": {"lr": 0.01}}
    search = {"space": {"alpha": [0.25, 0.75]}, "sampler": "grid"}
    sweep = sweep_with(sweep_form, trial={**sweep_form["trial"], "finetune": finetune}, search=search)
    control = sweep.build(sweep.blocks()[0], {"teacher": "none"}, 0)
    pretrained = train(control, store, prepared)
    outlook = seen(sweep, store)
    assert outlook.found == {pretrained.key}
    assert [work.name for work in outlook.new.values()] == [
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


def test_a_pruned_candidate_is_found(sweep_form: dict[str, Any], prepared: Session, store: Store) -> None:
    space = {"optimizer.lr": {"log": [1e-3, 1e-1]}}
    search = {"space": space, "sampler": "random", "candidates": 5, "window": 1}
    sweep = SweepConfig.model_validate({**sweep_form, "search": search})
    campaign = run(sweep, store, prepared)
    states = Counter(outcome.state for outcome in campaign.outcomes.values())
    assert states["complete"] + states["pruned"] == 6
    assert states["pruned"] > 0
    outlook = seen(sweep, store)
    assert (len(outlook.found), outlook.trials) == (6, 0)


def test_data_that_are_not_prepared_or_have_changed_are_named(
    sweep_form: dict[str, Any], videos: Path, prepared: Session, store: Store, tmp_path: Path
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
    # Prepared there, the trial is found: it is the same videos.
    prepare_clips(moved.trial.data, moved.trial.clip, store)
    assert len(seen(moved, store).found) == 1


def test_clips_are_found_by_the_records_alone(
    eight_videos: Path, tmp_path: Path, decodes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, store = tmp_path / "set", Store(tmp_path / "runs")
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
    sweep_form: dict[str, Any], store: Store, sweep_file: Path
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


# ---- what it costs ---------------------------------------------------------------------------------------------------


def timed(files: TrialFiles, seconds: dict[int, float], computed: dict[int, int] | None = None) -> None:
    """Give a trial's epochs other times, to calculate with."""
    rows = files.rows()
    for row in rows:
        row["seconds"] = seconds[row["epoch"]]
        if computed is not None:
            row["targets_computed"] = computed[row["epoch"]]
    write_jsonl(files.epochs, rows)


@pytest.fixture
def longer_form(sweep_form: dict[str, Any]) -> dict[str, Any]:
    """Trials of three epochs, of which the first is not evaluated."""
    return {**sweep_form, "trial": {**sweep_form["trial"], "epochs": 3, "stages": {"early": 2, "late": 3}}}


def test_hours_and_disk_follow_from_the_rows_of_such_trials(
    longer_form: dict[str, Any], prepared: Session, store: Store
) -> None:
    search = {
        "space": {"optimizer.lr": {"log": [1e-3, 1e-1]}},
        "blocks": {"fraction": [1.0, 0.5]},
        "sampler": "random",
        "candidates": 2,
        "window": 1,
        "seeds": [0, 1],
    }
    sweep = sweep_with(longer_form, search=search)
    whole, half = sweep.blocks()
    config = sweep.build(whole, {"teacher": "none"}, 0)
    files = train(config, store, prepared)
    timed(files, {1: 4.0, 2: 10.0, 3: 14.0})  # an epoch takes 4 s, an evaluation 8 s on average
    data = TrialData.of(config, prepared.clips(config))
    assert data.size == 24
    held = len(data.validation) + len(data.test)
    ratio = (12 + held) / (24 + held)
    full, part = 3 * 4.0 + 2 * 8.0, 3 * 2.0 + 2 * 8.0 * ratio
    # Still to do: with all data a control and two candidates of two seeds, with half of them two controls as well.
    found = cost(sweep, store)
    assert found.trials == pytest.approx(1 + 4 + 2 + 4)
    assert found.seconds == pytest.approx(5 * full + 6 * part)
    assert (found.unmeasured, found.devices) == ({}, {processor()})
    # A checkpoint at the end and one of stage early; its memory bank holds two float32 projections of each video.
    bank = 2 * 4 * config.loss.projection
    full_size = files.checkpoint.stat().st_size
    sizes = 5 * 2 * full_size + 6 * 2 * (full_size - 12 * bank)
    assert found.bytes == pytest.approx(sizes, rel=0.02)

    # Of a trial that was stopped only the rest counts.
    stopped(sweep.build(half, {"teacher": "none"}, 0), store, prepared, epoch=2)
    assert cost(sweep, store).seconds == pytest.approx(5 * full + 6 * part - 2 * 2.0 - 8.0 * ratio)


def test_targets_of_one_teacher_and_seed_are_computed_once(
    longer_form: dict[str, Any], prepared: Session, store: Store
) -> None:
    search = {
        "space": {"teacher": ["c3d"], "tau": [2.0, 4.0, 8.0]},
        "controls": [{"teacher": "c3d", "tau": 1.0}],
        "sampler": "grid",
        "seeds": [0, 1],
    }
    four = {**longer_form["trial"], "epochs": 4, "stages": {"mid": 3, "late": 4}}
    sweep = sweep_with(longer_form, trial=four, search=search)
    (block,) = sweep.blocks()
    train(sweep.teacher("c3d", block), store, prepared)
    control = train(sweep.build(block, {"teacher": "c3d", "tau": 1.0}, 0), store, prepared)
    rows = control.rows()
    assert [row["targets_computed"] for row in rows] == [24, 24, 24, 24]
    # An epoch takes 3 s, 24 targets 6 s and an evaluation 9 s.
    timed(control, {1: 9.0, 2: 3.0, 3: 12.0, 4: 12.0}, {1: 24, 2: 0, 3: 0, 4: 0})
    # Seed 0's targets are there; seed 1's are computed once for its control and three candidates.
    found = cost(sweep, store)
    assert found.trials == 3 + 4
    targets = 4 * 24
    assert found.seconds == pytest.approx(7 * (4 * 3.0 + 2 * 9.0) + targets * 6.0 / 24)
    logits = 5 * 4 * targets
    sizes = 7 * 2 * control.checkpoint.stat().st_size
    assert found.bytes == pytest.approx(sizes + logits, rel=0.02)
    # Where no row tells what targets take, they count as a third of a training step.
    timed(control, {1: 3.0, 2: 3.0, 3: 12.0, 4: 12.0}, {1: 0, 2: 0, 3: 0, 4: 0})
    assert cost(sweep, store).seconds == pytest.approx(7 * (4 * 3.0 + 2 * 9.0) + 4 * 3.0 / 3)


def test_shapes_that_nobody_has_measured_are_named(
    longer_form: dict[str, Any], prepared: Session, store: Store
) -> None:
    search = {"space": {"teacher": ["c3d"], "tau": [2.0]}, "sampler": "grid"}
    sweep = sweep_with(longer_form, search=search)
    train(sweep.build(sweep.blocks()[0], {"teacher": "none"}, 0), store, prepared)
    said = last_lines(plan(sweep, store))
    assert said[0] == "in the store 1 found, 0 continued, 2 new"
    assert said[1:] == [
        "to train     2 trials",
        "             how long they take, nobody has measured here (`plan --measure` does):",
        "               c3d width 4 (8 frames of 32², batch 16)",
        "               r3d depth 10 width 4 taught by c3d width 4 (8 frames of 32², batch 16)",
    ]


def test_measure_times_every_shape_and_trains_nothing(
    sweep_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "runs")
    assert main(["plan", str(sweep_file), "--store", str(store.root), "--measure"]) == 0
    said = capsys.readouterr()
    # Scratch, two teachers, and a student of each.
    assert "measuring 5 of 5" in said.err
    measured = [read_json(path) for path in store.root.glob("measured/*.json")]
    assert len(measured) == 5
    for speed in measured:
        assert speed["device"] == processor()
        assert min(speed["sample_s"], speed["video_s"], speed["checkpoint_bytes"]) > 0
    assert sum(speed["target_s"] > 0 for speed in measured) == 2
    assert store.trials() == []
    assert {path.name for path in store.root.iterdir()} == {"clips", "locks", "manifests", "measured", "store.json"}
    (line,) = (line for line in said.out.splitlines() if line.startswith("to train"))
    assert line.startswith("to train     at most 12 trials: about ")
    # Later plans read it, and say the same; nothing is measured twice.
    for options in ([], ["--measure"]):
        assert main(["plan", str(sweep_file), "--store", str(store.root), *options]) == 0
        again = capsys.readouterr()
        assert (again.out, "measuring" in again.err) == (said.out, False)
    assert main(["sweep", str(sweep_file), "--store", str(store.root), "--dry-run"]) == 0
    assert capsys.readouterr().out == said.out


def test_measure_refuses_what_a_sweep_refuses(
    sweep_form: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form = {**sweep_form, "trial": {**sweep_form["trial"], "data": {"dataset": "ucf101", "root": "nowhere"}}}
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(form))
    assert main(["plan", str(file), "--store", str(tmp_path / "runs"), "--measure"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_as_many_trials_as_fit_run_side_by_side(sweep_form: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdtune.sweep.costs.cores", lambda: 16)
    monkeypatch.setattr("kdtune.sweep.costs.gpus", lambda: 2)
    monkeypatch.setattr("kdtune.sweep.costs.memory_bytes", lambda: 64 * 2**30)
    for resources, fit in (
        ({"cpu": 1}, 16),
        ({"cpu": 3, "gpu": 0.25}, 5),
        ({"cpu": 1, "gpu": 0.25}, 8),
        ({"cpu": 1, "memory": 10}, 6),
        ({"cpu": 32}, 0),
    ):
        sweep = sweep_with(sweep_form, resources=resources)
        assert side_by_side(sweep.resources) == fit
    assert [duration(seconds) for seconds in (40, 600, 12240)] == ["40 s", "10 min", "3.4 hours"]
