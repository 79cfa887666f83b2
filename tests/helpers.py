"""Shared by several test files: paths of the tree, other processes, and videos without a ClipStore."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdtune.cli import main
from kdtune.clips import motion, synthetic
from kdtune.clips.frames.store import ClipStore
from kdtune.clips.video.decode import decode
from kdtune.config.sections import ClipConfig
from kdtune.config.sweep import SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.history.events import Asked
from kdtune.history.reading import read_history
from kdtune.history.trials import sweep_trials
from kdtune.report.results import results_json
from kdtune.store import StoreFiles, TrialFiles
from kdtune.sweep.group import TrialGroup
from kdtune.train.replay import CLOCK
from kdtune.train.session import Session

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


def run_python(code: str, *, hash_seed: int | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter in the repository root, with another salt of Python's hash()."""
    env = dict(os.environ)
    if hash_seed is not None:
        env["PYTHONHASHSEED"] = str(hash_seed)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def _places(store: Path | None) -> dict[str, str]:
    return {} if store is None else {"KDTUNE_STORE": str(store), "MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db"}


def kdtune(*arguments: str, cwd: Path = ROOT, store: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does, in a process of its own."""
    command = [sys.executable, "-m", "kdtune", *arguments]
    environment = os.environ | _places(store)
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


class Screen(io.StringIO):
    """Says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def kdtune_here(
    *arguments: str, cwd: Path = ROOT, store: Path | None = None, stream: type[io.StringIO] = io.StringIO
) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, which saves a process's start where the process is not what is tested."""
    out, err = stream(), stream()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        for name, value in _places(store).items():
            patch.setenv(name, value)
        try:
            code = main(list(arguments))
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Return the text of a refusal, which must not be a traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


CPU = torch.device("cpu")
#: The clip of the quick start: frames are stored at 37×49.
SMALL_CLIP = ClipConfig(frames=8, size=32)


def copied(clips: ClipStore, store: StoreFiles) -> ClipStore:
    """Copy a ClipStore to where `prepare_clips` finds it in `store`, so that a test may damage it."""
    folder = store.clips(clips.folder.name)
    shutil.copytree(clips.folder, folder)
    return ClipStore.open(folder)


def link_clips(store: Path, to: Path) -> None:
    """Make the store `to`, with the decoded frames of `store`, so that nothing is decoded again."""
    for part in ("clips", "manifests"):
        (to / part).mkdir(parents=True)
        for entry in (store / part).iterdir():  # not the folder itself: what is decoded later belongs to the new store
            (to / part / entry.name).symlink_to(entry.resolve())


def bits(files: TrialFiles) -> tuple[list[dict[str, Any]], str]:
    """Return every figure of every epoch, and the digest of the weights."""
    rows = [{name: value for name, value in row.items() if name not in CLOCK} for row in files.rows()]
    result = files.result()
    assert result is not None
    return rows, result["weights_sha256"]


def clocks(files: TrialFiles) -> list[float]:
    """Return when each epoch was trained."""
    return [row["at"] for row in files.rows()]


def session_of(store: StoreFiles, prepared: Session) -> Session:
    """Return a session with the clips of `prepared`, and with the samples and costs that it has made so far.

    Finding them changes no bit (test_samples.py, test_cost.py); making them anew takes most of a tiny trial's time.
    """
    return Session(store, dict(prepared.folders), cache=prepared.cache, costs=prepared.costs)


#: The teacher of most tests. The store of the fixture `prepared` has it.
TEACHER = {"student": {"backbone": "c3d", "width": 4}, "epochs": 1, "stages": {"late": 1}}


def _lend(config: TrialConfig, store: StoreFiles, prepared: Session) -> None:
    """Copy the trials that `config` starts from into `store` if the store of `prepared` has them."""
    for other in config.needs:
        lent, here = prepared.files(other), store.trial(prepared.key(other))
        if lent.folder != here.folder and lent.result() and store.mirror is None and not here.folder.exists():
            shutil.copytree(lent.folder, here.folder)


def train(config: TrialConfig, store: StoreFiles, prepared: Session) -> TrialFiles:
    """Train `config` to the end in `store`, in a session of `prepared`."""
    _lend(config, store, prepared)
    session = session_of(store, prepared)
    for _ in session.trial(config, CPU):
        pass
    return session.files(config)


def stopped(config: TrialConfig, store: StoreFiles, prepared: Session, epoch: int) -> TrialFiles:
    """Train `config` as `train` does, but stop after `epoch`."""
    _lend(config, store, prepared)
    session = session_of(store, prepared)
    run = session.trial(config, CPU)
    for row in run:
        if row["epoch"] == epoch:
            break
    run.close()
    return session.files(config)


@contextmanager
def short_videos() -> Iterator[None]:
    """Give synthetic videos 54 to 60 frames instead of 100: drawing and decoding them takes most of many tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(motion, "FRAMES", (54, 60))
        patch.setattr(synthetic, "WORTH_WORKERS", 1000)  # made in this process, where the patch holds
        yield


def decoded(path: Path, size: tuple[int, int]) -> tuple[np.ndarray, str]:
    """Return all frames of a video (n, h, w, 3), and the decoder."""
    frames: list[np.ndarray] = []
    by = ""
    for number, pixels, decoder in decode(path, size):
        del frames[number:]
        frames.append(pixels)
        by = decoder
    return np.stack(frames), by


def flip_a_byte(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def fill_disk(folder: Path, leave: int) -> Path:
    """Fill the disk of `folder`, except for about `left` bytes."""
    filler = folder / "filler"
    filler.write_bytes(bytes(max(0, shutil.disk_usage(folder).free - leave)))
    return filler


class FakeClips:
    """A stand-in for a ClipStore, for reading frames: random videos of the given lengths."""

    def __init__(self, lengths: list[int], height: int, width: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.videos = [rng.integers(0, 256, (length, height, width, 3), dtype=np.uint8) for length in lengths]
        self.digest = "fake"

    def frames(self, row: int) -> np.ndarray:
        return self.videos[row]

    def clip(self, row: int, start: int, count: int) -> np.ndarray:
        return self.videos[row][start : start + count]


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """Return Σ (observed − expected)² / expected over its degrees of freedom: near 1 for a true expectation."""
    counts, expected = np.asarray(counts, float), np.asarray(expected, float)
    return float(((counts - expected) ** 2 / expected).sum() / max(1, len(counts) - 1))


#: Candidates of the sweep below, in each of its two blocks.
CANDIDATES, WINDOW = 9, 3


def only_group(config: TrialConfig, key: str) -> TrialGroup:
    """Return a candidate of one trial, outside of any sweep."""
    asked = Asked(
        group="it",
        kind="candidate",
        block="all",
        number=0,
        seeds=(0,),
        keys=(key,),
        params=({},),
        epochs=config.epochs,
    )
    return TrialGroup(asked, None, (config,))


def sweep_of(**search_part: object) -> SweepConfig:
    """Return a sweep with every kind of parameter except `int`. `search_part` replaces parts of section `search`."""
    return SweepConfig.model_validate(
        {
            "name": "s",
            "trial": {"epochs": 8, "stages": {"early": 2, "mid": 6, "late": 8}},
            "teachers": {"c3d": {"student": {"backbone": "c3d"}}, "r21d": {"student": {"backbone": "r21d"}}},
            "search": {
                "space": {
                    "teacher": ["c3d", "r21d"],
                    "lambda": {"log": [0.05, 5.0]},
                    "tau": {"range": [1.0, 8.0], "when": {"teacher": "c3d"}},
                    "student.width": [4, 16, 64],
                },
                "blocks": {"data.fraction": [1.0, 0.25]},
                "candidates": CANDIDATES,
                "window": WINDOW,
                "startup": 2,
                **search_part,
            },
            "prune": {"at": ["early", "mid"], "keep": 0.5, "min_peers": 2},
        }
    )


SWEEP = """\
name: tiny
trial:
  data: {dataset: synthetic, fraction: 1.0}
  clip:
    frames: 8
    size: 32
  student: {backbone: r3d, width: 4}
  loss:
    tau: 4.0
    lambda: 1.0
  epochs: 8
  stages: {early: 2, mid: 6, late: 8}
teachers:
  c3d: {student: {backbone: c3d, width: 6}}
search:
  space:
    teacher: [c3d]
    tau: {range: [1.0, 8.0]}
  blocks: {data.fraction: [1.0, 0.25]}
  candidates: 4
  seeds: [0, 1]
  seed: 0
"""


def write_sweep(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """Write SWEEP as a file, with the lines `old` replaced by `new`."""
    text = SWEEP
    for old, new in changes:
        assert text.count(f"{old}\n") == 1
        text = text.replace(f"{old}\n", f"{new}\n")
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    return file


def sweep_results(store: StoreFiles, name: str) -> dict[str, Any]:
    """Return what `results --format json` prints, without MLflow's runs."""
    return results_json(sweep_trials(store, read_history(store, name)), {})
