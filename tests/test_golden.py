"""Golden values: a change of results is noticed, and either meant, with other semantics, or mended (DESIGN 4.2)."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any, get_args

import golden
import pytest
from golden import FILE, LARGE, TRIALS, Trained, complaint
from helpers import ROOT

from kdtune.config.key import TRAINER_SEMANTICS
from kdtune.config.network import Own, Torchvision
from kdtune.store import read_json
from kdtune.train.session import Session

RECORDED = read_json(FILE)
ANEW = "record anew with `python tests/golden.py`"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return golden.rendered_session(tmp_path_factory.mktemp("golden"))


# S3D is small, though torchvision's.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE and name != "s3d" else ()) for name in TRIALS]
)
def test_a_trial_gives_its_golden_values(name: str, session: Session) -> None:
    wrong = complaint(RECORDED, name, Trained.of(name, session))
    assert not wrong, wrong


def test_the_golden_values_are_of_this_version_and_of_every_trial() -> None:
    assert RECORDED["semantics"] == TRAINER_SEMANTICS, f"TRAINER_SEMANTICS has changed: {ANEW}"
    assert list(RECORDED["trials"]) == sorted(TRIALS), f"the trials have changed: {ANEW}"


def test_every_backbone_contrast_and_target_has_golden_values() -> None:
    tried = {(config.student.backbone, config.loss.target, config.loss.contrast) for config in TRIALS.values()}
    for backbone in get_args(Own):
        for case in (("pretext", "memory_bank"), ("pretext", "in_batch"), ("action", "memory_bank")):
            assert (backbone, *case) in tried
    assert {(backbone, "pretext", "in_batch") for backbone in get_args(Torchvision)} <= tried


def test_the_rendered_frames_are_golden_on_every_machine(session: Session) -> None:
    clips = session.clips(next(iter(TRIALS.values())))
    assert clips.digest == RECORDED["frames"], f"the rendered frames, or how Pillow draws them, have changed: {ANEW}"


#: Trained by another process, which is told to do without this CPU's newest instructions.
ELSEWHERE = """
import json, sys, tempfile
from pathlib import Path
from golden import FILE, Trained, complaint, rendered_session
golden = json.loads(FILE.read_text())
with tempfile.TemporaryDirectory() as folder:
    session = rendered_session(Path(folder))
    trained = {name: Trained.of(name, session) for name in sys.argv[1:]}
said = {name: [trial.profile["cpu_capability"], complaint(golden, name, trial)] for name, trial in trained.items()}
print(json.dumps(said))
"""


def test_another_cpus_rounding_is_tolerated() -> None:
    names = ["r3d memory_bank", "r21d in_batch", "c3d action", "fine-tuning"]
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *names],
        cwd=ROOT / "tests",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, (capability, wrong) in json.loads(done.stdout).items():
        assert capability == "DEFAULT"
        assert not wrong, f"{name}: {wrong}"


def as_recorded(name: str, **profile: Any) -> Trained:
    """What the trial would give if nothing had changed, under the recorded profile but for `profile`."""
    precision = TRIALS[name].precision
    profile = {**RECORDED["profile"], "precision": precision, "frames": RECORDED["frames"], **profile}
    return Trained(profile, copy.deepcopy(RECORDED["trials"][name]))


def changed(trial: Trained, epoch: str, path: tuple[str, ...], by: Any) -> Trained:
    figures = copy.deepcopy(trial.figures)
    place = figures[epoch]
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = by if isinstance(by, str) else place[path[-1]] + by
    return replace(trial, figures=figures)


@pytest.mark.parametrize(
    ("path", "by", "tolerated"),
    [
        (("train", "loss"), 1e-12, True),
        (("train", "loss"), 0.05, False),
        (("train", "distill"), 0.01, False),
        (("evaluation", "test", "knn"), 1 / 16, True),
        (("evaluation", "test", "knn"), 0.5, False),
        (("evaluation", "test", "action_floor"), 1 / 16, False),
        (("lr",), 1e-9, False),
        (("samples_sha256",), "0", False),
        (("weights_sha256",), "0", True),
        (("optimizer_sha256",), "0", True),
    ],
)
def test_what_changed_is_said_to_the_bit_here_and_beyond_rounding_elsewhere(
    path: tuple[str, ...], by: Any, tolerated: bool
) -> None:
    name = "r3d memory_bank"
    here, elsewhere = as_recorded(name), as_recorded(name, device="another")
    assert complaint(RECORDED, name, here) == complaint(RECORDED, name, elsewhere) == ""
    said = complaint(RECORDED, name, changed(here, "epoch 2", path, by))
    assert said.startswith(f"{name} is not what golden.json says (exact: the profile is the recorded one):")
    assert f"  epoch 2, {'.'.join(path)}: recorded " in said
    assert said.endswith(golden.ADVICE)
    assert "raise TRAINER_SEMANTICS" in golden.ADVICE
    said = complaint(RECORDED, name, changed(elsewhere, "epoch 2", path, by))
    assert (said == "") == tolerated
    assert tolerated or "(tolerant: device was " in said
