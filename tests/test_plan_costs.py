"""The costs in `plan`, against trials that were really trained, and against measured ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import stopped, train
from planned import knowing, last_lines, sweep_with

from kdtune.cli import main
from kdtune.clips.machine import processor
from kdtune.config.sweep import SweepConfig
from kdtune.plan.costs import Cost, cost_of, side_by_side
from kdtune.plan.forecast import look_ahead
from kdtune.plan.keys import Keys
from kdtune.plan.plan import plan
from kdtune.plan.speeds import FORWARD
from kdtune.store import StoreFiles, TrialFiles
from kdtune.store.files import read_json, write_json, write_jsonl
from kdtune.train.prepared import Prepared
from kdtune.train.session import Session


@pytest.fixture
def store(prepared: Session, tmp_path: Path) -> StoreFiles:
    return knowing(prepared, tmp_path / "runs")


def cost(sweep: SweepConfig, store: StoreFiles) -> Cost:
    keys = Keys(Prepared(store))
    forecast = look_ahead(sweep, store, keys)
    return cost_of(forecast.pending, keys.prepared, keys.identities, "cpu")


def timed(files: TrialFiles, seconds: dict[int, float]) -> None:
    """Replace the times of a trial's epochs by round numbers."""
    rows = files.rows()
    for row in rows:
        row["seconds"] = seconds[row["epoch"]]
    write_jsonl(files.epochs, rows)


@pytest.fixture
def longer_form(sweep_form: dict[str, Any]) -> dict[str, Any]:
    """Trials of three epochs, the first of which is not evaluated."""
    return {**sweep_form, "trial": {**sweep_form["trial"], "epochs": 3, "stages": {"early": 2, "late": 3}}}


def test_hours_and_disk_follow_from_the_rows_of_such_trials(
    longer_form: dict[str, Any], prepared: Session, store: StoreFiles
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
    timed(files, {1: 4.0, 2: 10.0, 3: 14.0})
    held = sum(read_json(files.data)["videos"][split] for split in ("validation", "test"))
    assert not config.watches_validation

    def work(samples: int, epochs: int, evaluations: int) -> float:
        """In samples of three clips that are trained on."""
        clips = (samples + held) * config.evaluation.clips + 7 * held  # 7: a video asked under each of five labels
        return epochs * samples + FORWARD * evaluations * clips / 3

    sample_s = 28.0 / work(24, 3, 2)
    full, part = 28.0, sample_s * work(12, 3, 2)
    # Remaining: with all data a control and two candidates of two seeds, with half of it two controls as well.
    found = cost(sweep, store)
    assert found.trials == pytest.approx(1 + 4 + 2 + 4)
    assert found.seconds == pytest.approx(5 * full + 6 * part)
    assert (found.unmeasured, found.devices) == ({}, {processor()})
    # A checkpoint at the end and one of stage early; its memory bank holds two float32 projections of each video.
    bank = 2 * 4 * config.loss.projection
    full_size = files.checkpoint.stat().st_size
    sizes = 5 * 2 * full_size + 6 * 2 * (full_size - 12 * bank)
    assert found.bytes == pytest.approx(sizes, rel=0.02)

    # A stopped trial counts only with what remains of it.
    stopped(sweep.build(half, {"teacher": "none"}, 0), store, prepared, epoch=2)
    assert cost(sweep, store).seconds == pytest.approx(5 * full + 6 * part - sample_s * work(12, 2, 1))
    # Records of another form do not tell a speed, and do not end the plan.
    for trial in store.trials():
        write_json(trial.data, {"videos": {"training": 24}})
    unknown = cost(sweep, store)
    assert (unknown.seconds, len(unknown.unmeasured)) == (0, 1)


def test_targets_of_one_teacher_and_seed_are_computed_once(
    longer_form: dict[str, Any], prepared: Session, store: StoreFiles
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
    timed(control, {1: 9.0, 2: 3.0, 3: 12.0, 4: 12.0})
    found = cost(sweep, store)
    assert found.trials == 3 + 4
    # Both seeds' targets are computed once, whatever the number of candidates. A target counts a third of a sample.
    held = sum(read_json(control.data)["videos"][split] for split in ("validation", "test"))
    targets, evaluated = 4 * 24, 2 * ((24 + held) * sweep.trial.evaluation.clips + 7 * held) / 3
    sample_s = 36.0 / (4 * 24 + FORWARD * (evaluated + targets))
    assert found.seconds == pytest.approx(sample_s * (7 * (4 * 24 + FORWARD * evaluated) + 2 * FORWARD * targets))
    logits = 5 * 4 * 2 * targets
    sizes = 7 * 2 * control.checkpoint.stat().st_size
    assert found.bytes == pytest.approx(sizes + logits, rel=0.02)


def test_shapes_that_nobody_has_measured_are_named(
    longer_form: dict[str, Any], prepared: Session, store: StoreFiles
) -> None:
    search = {"space": {"teacher": ["c3d"], "tau": [2.0]}, "sampler": "grid"}
    sweep = sweep_with(longer_form, search=search)
    train(sweep.build(sweep.blocks()[0], {"teacher": "none"}, 0), store, prepared)
    said = last_lines(plan(sweep, store))
    assert said[0] == "in the store 1 found, 0 continued, 2 new"
    assert said[1:] == [
        "to train     2 trials",
        "             all of unknown speed (`plan --measure` finds it):",
        "               c3d width 4 (8 frames of 24², batch 16)",
        "               r3d depth 10 width 4 taught by c3d width 4 (8 frames of 24², batch 16)",
    ]


@pytest.mark.slow
def test_measure_times_every_shape_and_trains_nothing(
    sweep_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = StoreFiles(tmp_path / "runs")
    assert main(["plan", str(sweep_file), "--store", str(store.root), "--measure"]) == 0
    said = capsys.readouterr()
    # Scratch, two teachers, and a student of each teacher.
    assert "measuring 5 of 5" in said.err
    measured = [read_json(path) for path in store.root.glob("measured/*.json")]
    assert len(measured) == 5
    for speed in measured:
        assert speed["device"] == processor()
        assert min(speed["sample_s"], speed["checkpoint_bytes"]) > 0
    assert store.trials() == []
    assert {path.name for path in store.root.iterdir()} == {"clips", "locks", "manifests", "measured", "store.json"}
    (line,) = (line for line in said.out.splitlines() if line.startswith("to train"))
    assert line.startswith("to train     at most 12 trials: about ")
    # Later plans read the record and agree; nothing is measured twice.
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
    assert not list(tmp_path.glob("runs/*")), "a folder that can be written to, and nothing in it"


def test_as_many_trials_as_fit_run_side_by_side(sweep_form: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdtune.plan.costs.cores", lambda: 16)
    monkeypatch.setattr("kdtune.plan.costs.gpus", lambda: 2)
    monkeypatch.setattr("kdtune.plan.costs.memory_bytes", lambda: 64 * 2**30)
    for resources, fit in (
        ({"cpu": 1}, 16),
        ({"cpu": 3, "gpu": 0.25}, 5),
        ({"cpu": 1, "gpu": 0.25}, 8),
        ({"cpu": 1, "memory": 10}, 6),
        ({"cpu": 32}, 0),
    ):
        sweep = sweep_with(sweep_form, resources=resources)
        assert side_by_side(sweep.resources) == fit
