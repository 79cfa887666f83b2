"""The benchmarks' baseline sees the same data as kdtune, and every benchmark starts. Nothing is timed here."""

from __future__ import annotations

import json
import random
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CPU, ROOT

from kdtune.clips.augment import augment, residual
from kdtune.clips.dataset import TrialData
from kdtune.clips.pretext import permute_quadrants
from kdtune.clips.tuples import PRETEXT_CLASSES, SPATIAL, read_clips
from kdtune.config.sweep import SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.store import StoreFiles
from kdtune.train.inputs import evenly_spaced_clips
from kdtune.train.session import Session

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.fixture
def other() -> ModuleType:
    import baseline_data

    return baseline_data


@pytest.fixture(scope="module")
def tiny(tiny: TrialConfig) -> TrialConfig:
    """With an even margin around its crops: torchvision's centre crop rounds half a pixel to the even number."""
    return tiny.model_copy(update={"clip": tiny.clip.model_copy(update={"resize": (28, 38)})})


@pytest.fixture(scope="module")
def prepared(tiny: TrialConfig, tmp_path_factory: pytest.TempPathFactory) -> Session:
    session = Session(StoreFiles(tmp_path_factory.mktemp("resized")))
    session.prepare(tiny)
    return session


@pytest.fixture
def data(tiny: TrialConfig, prepared: Session) -> TrialData:
    return TrialData.of(tiny, prepared.clips(tiny))


@pytest.fixture
def listed(data: TrialData, videos: Path) -> list[tuple[str, int]]:
    """The validation videos according to the baseline."""
    rows = data.clips.index.loc[data.validation]
    return [(str(videos / row.video), row.label) for row in rows.itertuples()]


def test_evaluation_clips_are_the_stores_centre_crops(
    other: ModuleType, tiny: TrialConfig, data: TrialData, listed: list[tuple[str, int]]
) -> None:
    spaced = other.Spaced(listed, tiny)
    theirs = torch.stack([spaced[i] for i in range(len(listed))])
    torch.testing.assert_close(theirs, evenly_spaced_clips(tiny, data, data.validation, CPU), atol=1e-5, rtol=0)


def test_outer_clips_of_a_validation_tuple(
    other: ModuleType, tiny: TrialConfig, data: TrialData, listed: list[tuple[str, int]]
) -> None:
    asked = other.Tuples(listed, tiny, train=False)
    room = (np.array(tiny.clip.stored_size) - tiny.clip.size) // 2
    for i, row in enumerate(data.validation[:4]):
        clips, _, _ = asked[i]
        first = random.Random(i).randrange(int(data.lengths[row]) - tiny.clip.tuple_frames + 1)
        start = np.array([[first, first + 2 * tiny.clip.start_stride]])
        crop = np.broadcast_to(room, (1, 2, 2))
        frames = read_clips(data.clips, np.array([row]), start, crop, tiny.clip)
        ours = residual(augment(torch.from_numpy(frames), None))[0]
        torch.testing.assert_close(clips[[0, 2]], ours, atol=1e-5, rtol=0)


def test_training_tuples(other: ModuleType, tiny: TrialConfig, listed: list[tuple[str, int]]) -> None:
    random.seed(0)
    torch.manual_seed(0)
    tuples = other.Tuples(listed, tiny, train=True)
    samples = [tuples[i % len(listed)] for i in range(60)]
    assert {clips.shape for clips, _, _ in samples} == {(3, 3, 8, 24, 24)}
    assert all(clips.isfinite().all() for clips, _, _ in samples)
    counts = np.bincount([label for _, label, _ in samples], minlength=PRETEXT_CLASSES)
    assert counts[:4].min() >= 5  # about .225 of 60 each; a remote clip needs more room
    assert not samples[0][0].equal(tuples[0][0])


def test_quadrants_are_turned_as_ours(other: ModuleType) -> None:
    clip = torch.randn(3, 8, 32, 32)
    assert other.pretext(clip, SPATIAL, random).equal(permute_quadrants(clip, [3, 2, 1, 0]))


def test_shapes_are_sweeps_that_the_baseline_reads_back() -> None:
    from shapes import SHAPES

    for shape in SHAPES.values():
        raw: dict[str, Any] = {**shape.sweep, "search": {**shape.sweep["search"], "candidates": shape.candidates}}
        trial = SweepConfig.model_validate(raw).trial
        form = trial.model_dump(mode="json", by_alias=True, exclude_unset=True)
        assert TrialConfig.model_validate(form) == trial


COMMANDS = sorted(path.name for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text())


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    assert end.value.code in (0, None)
    assert f"python benchmarks/{name}" in capsys.readouterr().out


@pytest.mark.slow
def test_scale_measures_its_three_sides(tmp_path: Path) -> None:
    """Real Ray, Optuna and MLflow on both sides, and the finished sweep again."""
    out = tmp_path / "scale.json"
    arguments = ["--trials", "6", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "scale.py"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for row in ("| 6 | kdtune |", "| 6 | tune |", "| 6 | bare |", "| asking Optuna |", "| kdtune | mlflow.jsonl |"):
        assert row in done.stdout
    sides = json.loads(out.read_text())["trials"]["6"]
    assert sides.keys() == {"kdtune", "tune", "bare"}
    assert {"trials", "ledger", "Optuna's journal", "mlflow.jsonl", "mlflow.db"} <= sides["kdtune"]["bytes"].keys()
    calls = {name: part["calls"] for name, part in sides["kdtune"]["parts"].items()}
    assert calls["asking Optuna"] == 5  # and one control
    assert calls["ledger"] == 2 * 6
    assert calls["Optuna's journal"] == 5
    assert calls["MLflow: a trial"] >= 6
