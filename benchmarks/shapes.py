"""The sweeps that the benchmarks measure, and folders with everything prepared for one of them."""

from __future__ import annotations

import copy
import dataclasses
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from common import ROOT, command, say
from kdtune.clips.dataset import TrialData
from kdtune.clips.synthetic import make_synthetic
from kdtune.config.load import load_sweep
from kdtune.config.sweep import SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.store import StoreFiles
from kdtune.train.samples import Samples
from kdtune.train.session import Session
from kdtune.train.targets import Targets


@dataclass(frozen=True)
class Shape:
    """A sweep to measure, on videos of 320×240 with 90 to 110 frames, and how often."""

    about: str
    videos: dict[str, Any]
    """Numbers of videos, for make_synthetic."""
    sweep: dict[str, Any]
    """The sweep file without what the benchmark sets: the data's root, the number of candidates."""
    candidates: int
    rounds: int
    ready: list[str] = field(default_factory=list)
    """Teachers whose targets are in the store before timing starts, as a trial on all data leaves them."""


def _quick() -> dict[str, Any]:
    """sweeps/lambda_tau.yaml with one block of all data, three stages and one seed, without what the baseline lacks."""
    sweep = yaml.safe_load((ROOT / "sweeps" / "lambda_tau.yaml").read_text())
    trial = {**sweep["trial"], "loss": {"contrast": "in_batch"}, "stages": {"early": 2, "mid": 6, "late": 8}}
    trial |= {"data": {"dataset": "synthetic"}, "evaluation": {"clips": 8}}
    sweep["search"] |= {"blocks": {}, "sampler": "random", "first": [], "seeds": [0]}
    return {**sweep, "trial": trial}


def _few(groups: int, clips: int) -> dict[str, Any]:
    """Videos of two motions."""
    return {"classes": ("Rise", "Grow"), "groups": groups, "clips": clips}


def _paper(epochs: int, fraction: float) -> dict[str, Any]:
    """KD's sizes: R3D of width 64 with a C3D as teacher, 10 frames at 112²; few data and epochs.

    After every epoch the recipe measures 3,783 videos of UCF101: 13 % of the cost of training on all data, and 6.6
    times that of training on 2 %. The shapes have as many validation videos as come near to that: 11 % and 6 times.
    """
    teacher = {"student": {"backbone": "c3d"}, "memory_format": "contiguous", "epochs": 1, "stages": {"late": 1}}
    return {
        "name": "paper_shape",
        "trial": {
            "data": {"dataset": "synthetic", "fraction": fraction, "validation": 0.3},
            "student": {"backbone": "r3d", "width": 64},
            "clip": {"frames": 10, "size": 112},
            "optimizer": {"batch": 4},
            "loss": {"negatives": 64},
            "epochs": epochs,
            "stages": {"late": epochs},
            "evaluation": {"clips": 1},
            "memory_format": "channels_last",
        },
        "teachers": {"c3d": teacher},
        "search": {
            "space": {
                "teacher": ["c3d"],
                "lambda": {"log": [0.05, 5.0]},
                "tau": {"range": [1.0, 8.0]},
                "alpha": {"range": [0.1, 1.0]},
            },
            "controls": [{"teacher": "none"}],
            "sampler": "random",
        },
        # As in sweeps/paper.yaml: what PCL measures after every epoch anyway.
        "objective": {"metric": "pretext", "split": "validation", "stage": "late"},
        "resources": {"cpu": 1, "gpu": 0},
    }


SHAPES = {
    "quick": Shape("sweeps/lambda_tau.yaml in one block", {"groups": 10}, _quick(), candidates=8, rounds=3),
    "paper": Shape(
        "R3D 64 and C3D 64 at 10×112², all of the data",
        # 12 training videos, 4 for validation, 4 for testing. One stage in 8 epochs: the paper has 3 in 200.
        _few(groups=5, clips=2),
        _paper(8, 1.0),
        candidates=11,
        rounds=1,
    ),
    # Of 84 training videos 2 are 2 %, with 36 for validation and 24 for testing. Relative to the training, one stage
    # with one clip per video in 20 epochs costs more than the paper's 3 stages with ten clips in 200 epochs on 2 % of
    # UCF101: 0.6 against 0.5.
    "paper-2": Shape(
        "R3D 64 and C3D 64 at 10×112², 2 % of the data",
        _few(groups=12, clips=6),
        _paper(20, 0.02),
        candidates=3,
        rounds=1,
        ready=["c3d"],
    ),
    "few": Shape(
        "R3D 64 and C3D 64 at 10×112², few videos", _few(groups=5, clips=1), _paper(2, 1.0), candidates=1, rounds=1
    ),
}


@dataclass(frozen=True)
class Place:
    """A folder with a shape's videos, its sweep file and a store with decoded clips and trained teachers."""

    folder: Path
    file: Path
    sweep: SweepConfig
    session: Session
    decode_s: float
    """Seconds of the whole command `kdtune data prepare`."""

    @property
    def store(self) -> Path:
        return self.session.store.root

    def copy_store(self, folder: Path, *, clips: bool) -> Path:
        """Make a new store with the trained teachers and what `Shape.ready` requires, with or without stored frames."""
        for part in ("trials", "targets", *(("clips", "manifests") if clips else ())):
            if (self.store / part).exists():
                shutil.copytree(self.store / part, folder / part)
        return folder


@contextmanager
def place(shape: Shape, candidates: int, epochs: int | None = None, *, train_teachers: bool = True) -> Iterator[Place]:
    """Prepare everything that a benchmark needs in a temporary folder, which is removed with the context."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the folder and a running command are removed, too
    with tempfile.TemporaryDirectory(prefix="kdtune-benchmark-") as temporary:
        folder = Path(temporary)
        say("making and decoding videos" + (", training the teachers" if train_teachers else "") + " …")
        make_synthetic(folder / "videos", **shape.videos)
        raw = copy.deepcopy(shape.sweep)
        raw["trial"]["data"]["root"] = str(folder / "videos")
        # As the baseline does: one label per video.
        raw["trial"]["evaluation"] = {**raw["trial"].get("evaluation", {}), "labels": "drawn"}
        raw["search"]["candidates"] = candidates
        raw["tracking"] = {**raw.get("tracking", {}), "models": "none"}  # the other sides log none
        if epochs is not None:
            raw["trial"] |= {"epochs": epochs, "stages": {"late": epochs}}
            raw["objective"]["stage"] = "late"
        file = folder / "sweep.yaml"
        file.write_text(yaml.safe_dump(raw, sort_keys=False, allow_unicode=True))
        store = folder / "store"
        decode_s, _ = command([sys.executable, "-m", "kdtune", "data", "prepare", str(file), "--store", str(store)])
        sweep, session = load_sweep(file), Session(StoreFiles(store))
        session.prepare(sweep.trial)
        for teacher in teachers(sweep).values() if train_teachers else ():
            session.prepare(teacher)
            for _ in session.trial(teacher, torch.device("cpu")):
                pass
        yield Place(folder, file, sweep, session, decode_s)


def teachers(sweep: SweepConfig) -> dict[str, TrialConfig]:
    block = sweep.blocks()[0]
    return {name: sweep.teacher(name, block) for name in sweep.teachers}


def targets_ready(at: Place, names: Sequence[str]) -> None:
    """Compute the targets of these teachers for the trial's own samples; the rest of a block is never read."""
    block = at.sweep.blocks()[0]
    for name in names:
        config = at.sweep.build(block, {"teacher": name}, at.sweep.search.first_seeds[0])
        assert config.teacher is not None
        data = TrialData.of(config, at.session.clips(config))
        own = dataclasses.replace(data, order=data.train)
        samples = Samples(config, own, torch.device("cpu"))
        load = partial(at.session.weights, config.teacher, samples.device)
        targets = Targets(samples, at.session.key(config.teacher), at.session.store, load)
        for epoch in range(1, config.epochs + 1):
            targets.epoch(epoch)
