"""Golden values: a change of results is noticed; it is intended, with the semantics raised, or fixed (DESIGN 4.2)."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from golden import FILE, LARGE, TRIALS, Trained, as_json, complaint, rendered_session
from helpers import ROOT, session_of

from kdtune.config.key import TRAINER_SEMANTICS
from kdtune.config.network import Own, Torchvision
from kdtune.losses.distill import distillation_loss
from kdtune.store import StoreFiles
from kdtune.train.session import Session

RECORDED = json.loads(FILE.read_text())
LATER = {"cpu", "switches", "arithmetic", "torchvision"}
ANEW = "record anew with `python tests/golden.py`"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """One store for all trials, so that their teachers are trained once."""
    return rendered_session(tmp_path_factory.mktemp("golden"))


# ---- the trials and their record -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in TRIALS]
)
def test_a_trial_gives_its_golden_values(name: str, session: Session) -> None:
    wrong = complaint(RECORDED, name, Trained.of(name, session))
    assert not wrong, wrong


def test_the_record_is_of_these_trials_semantics_and_videos(session: Session) -> None:
    assert RECORDED["semantics"] == TRAINER_SEMANTICS, ANEW
    assert set(RECORDED["trials"]) == set(TRIALS), ANEW
    now = Trained.of("no contrast", session).profile
    assert RECORDED["frames"] == now.pop("frames"), f"the videos are rendered otherwise; if that is meant, {ANEW}"
    # With other fields no profile would equal the recorded one, and nothing would be exact. Later fields are unknown
    # there.
    assert set(RECORDED["profile"]) | LATER == set(now), ANEW


def test_every_backbone_every_contrast_and_both_targets_have_a_trial() -> None:
    taught = {
        (config.student.backbone, "action" if config.loss.target == "action" else config.loss.contrast)
        for config in TRIALS.values()
        if config.distils
    }
    assert taught == {(name, kind) for name in get_args(Own) for kind in ("memory_bank", "in_batch", "action")}
    assert {config.student.backbone for config in TRIALS.values()} == {*get_args(Own), *get_args(Torchvision)}


def test_the_trials_go_where_they_are_meant_to() -> None:
    """The plateau and the best weights occur as their comments say; otherwise they would test nothing."""
    epochs = RECORDED["trials"]["plateau"]
    assert [epochs[f"epoch {epoch}"]["lr"] for epoch in (1, 2, 3, 4)] == pytest.approx([1e-4, 1e-4, 2e-5, 5e-6])
    figures = RECORDED["trials"]["best weights"]
    assert figures["weights_sha256"] == figures["epoch 1"]["weights_sha256"]
    assert figures["epoch 1"]["validation"]["pretext_loss"] < figures["epoch 2"]["validation"]["pretext_loss"] - 0.005


def test_the_file_is_as_it_would_be_written() -> None:
    assert FILE.read_text() == as_json(RECORDED) + "\n"


# ---- another profile -------------------------------------------------------------------------------------------------

ELSEWHERE = """
import json, sys
sys.path.insert(0, "tests")
from golden import Trained
from kdtune.store import StoreFiles
from kdtune.train.session import Session
session = Session(StoreFiles(sys.argv[1]), json.loads(sys.argv[2]))
print(json.dumps({name: vars(Trained.of(name, session)) for name in sys.argv[3:]}))
"""


@pytest.mark.slow
@pytest.mark.skipif(RECORDED["profile"]["cpu_capability"] == "DEFAULT", reason="recorded without vector instructions")
def test_a_cpu_that_rounds_otherwise_is_tolerated(session: Session, tmp_path: Path) -> None:
    names = ["r3d memory_bank", "tdn_light in_batch", "c3d action", "bf16"]
    plain = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path), json.dumps(session.folders), *names]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **plain}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, values in json.loads(done.stdout.splitlines()[-1]).items():
        got = Trained(**values)
        assert got.profile["cpu_capability"] == "DEFAULT"
        assert got.figures["epoch 1"]["train"] != RECORDED["trials"][name]["epoch 1"]["train"], "nothing was rounded"
        wrong = complaint(RECORDED, name, got)
        assert not wrong, wrong


# ---- what is noticed -------------------------------------------------------------------------------------------------

NAME = "r3d in_batch"
PROFILE = {"device": "this CPU", "torch": "2.11.0", "precision": "fp32"}
FIGURES = {
    "epoch 1": {
        "epoch": 1,
        "lr": 0.01,
        "train": {"loss": 4.0, "distill": 0.25, "pretext_accuracy": 0.5},
        "samples_sha256": "aa",
        "evaluation": {"test": {"pretext_loss": 1.5, "pretext_majority": 0.25, "knn": 0.5, "best_knn": 0.5, "f1": 0.5}},
        "weights_sha256": "bb",
        "optimizer_sha256": "cc",
        "stage": "late",
    },
    "weights_sha256": "bb",
}
GOLDEN = {"semantics": 2, "profile": PROFILE, "frames": "dd", "trials": {NAME: FIGURES}}


def got(path: str, value: Any, **profile: Any) -> Trained:
    """Return the recorded figures with one changed, added, or removed (None)."""
    figures = copy.deepcopy(FIGURES)
    below: Any = figures
    *parts, last = path.split("/")
    for part in parts:
        below = below[part]
    below[last] = value
    if value is None:
        del below[last]
    return Trained({**PROFILE, "frames": "dd", **profile}, figures)


#: A figure, and values that no profile may give for it.
WRONG = [
    ("epoch 1/train/loss", 4.0005),
    ("epoch 1/train/loss", float("nan")),
    ("epoch 1/train/distill", 0.2502),
    ("epoch 1/train/distill", None),
    ("epoch 1/train/features", 0.25),
    ("epoch 1/train/pretext_accuracy", 0.58),
    ("epoch 1/evaluation/test/pretext_loss", 1.4998),
    ("epoch 1/evaluation/test/pretext_majority", 0.26),
    ("epoch 1/evaluation/test/knn", 0.625),
    ("epoch 1/evaluation/test/best_knn", 0.625),
    ("epoch 1/evaluation/test/f1", 0.1),
    ("epoch 1/samples_sha256", "other"),
    ("epoch 1/weights_sha256", None),
    ("epoch 1/lr", 0.01 + 1e-17),
    ("epoch 1/stage", "early"),
    ("epoch 2", {"epoch": 2}),
    ("epoch 1", None),
]
#: A figure, and values that another profile may give for it.
ROUNDED = [
    ("epoch 1/train/loss", 4.0 - 1e-15),
    ("epoch 1/train/loss", 4.0003),
    ("epoch 1/train/distill", 0.25009),
    ("epoch 1/evaluation/test/pretext_loss", 1.50005),
    ("epoch 1/evaluation/test/knn", 0.5625),
    ("epoch 1/evaluation/test/best_knn", 0.4375),
    ("epoch 1/evaluation/test/f1", 0.3),
    ("epoch 1/weights_sha256", "other"),
    ("epoch 1/optimizer_sha256", "other"),
    ("weights_sha256", "other"),
]


@pytest.mark.parametrize(("path", "value"), [*WRONG, *ROUNDED])
def test_under_the_recorded_profile_every_bit_counts(path: str, value: Any) -> None:
    assert complaint(GOLDEN, NAME, got("epoch 1/lr", 0.01)) == ""
    assert "(exact: the profile is the recorded one)" in complaint(GOLDEN, NAME, got(path, value))
    # A field that was not recorded is unknown; it does not make another profile.
    assert "(exact: the profile is the recorded one)" in complaint(GOLDEN, NAME, got(path, value, new=1))


@pytest.mark.parametrize("profile", [{"device": "that CPU"}, {"torch": "2.12.0"}])
def test_under_another_profile_another_rounding_is_tolerated(profile: dict[str, Any]) -> None:
    for path, value in ROUNDED:
        assert complaint(GOLDEN, NAME, got(path, value, **profile)) == ""
    for path, value in WRONG:
        assert "(tolerant: " in complaint(GOLDEN, NAME, got(path, value, **profile)), path


def test_bf16_rounds_more_and_its_precision_is_no_other_profile() -> None:
    golden = {**GOLDEN, "trials": {"bf16": FIGURES}}
    path = "epoch 1/train/loss"
    assert "(exact" in complaint(golden, "bf16", got(path, 4.01, precision="bf16"))
    assert complaint(golden, "bf16", got(path, 4.01, precision="bf16", torch="2.12.0")) == ""
    assert "(tolerant" in complaint(golden, "bf16", got(path, 4.03, precision="bf16", torch="2.12.0"))


def test_the_complaint_says_what_differs_and_what_to_do() -> None:
    advice = (
        "If this change of results is meant, raise TRAINER_SEMANTICS in kdtune/config/key.py and record anew with "
        "`python tests/golden.py`; else mend the change."
    )
    assert complaint(GOLDEN, NAME, got("epoch 1/train/loss", 4.5)).splitlines() == [
        "r3d in_batch is not what golden.json says (exact: the profile is the recorded one):",
        "  epoch 1, train.loss: recorded 4.0, got 4.5",
        advice,
    ]
    first, *shown, more, last = complaint(GOLDEN, NAME, got("epoch 1", {}, torch="2.12.0")).splitlines()
    assert first == "r3d in_batch is not what golden.json says (tolerant: torch was '2.11.0', is '2.12.0'):"
    assert shown[:2] == ["  epoch 1, epoch: recorded 1, got None", "  epoch 1, lr: recorded 0.01, got None"]
    assert (len(shown), more, last) == (5, "  … and 3 more figures", advice)


def test_a_changed_trainer_is_noticed_under_any_profile(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "kdtune.train.trial.distillation_loss", lambda student, teacher, tau: distillation_loss(student, teacher, 1.0)
    )
    changed = Trained.of("c3d action", session_of(StoreFiles(tmp_path), session))
    here = {field: value for field, value in changed.profile.items() if field != "frames"}
    for mode, profile in (("exact", here), ("tolerant", {**here, "device": "another"})):
        wrong = complaint({**RECORDED, "profile": profile}, "c3d action", changed)
        assert wrong.startswith(f"c3d action is not what golden.json says ({mode}: ")
        assert "  epoch 1, train.distill: recorded " in wrong
        assert "raise TRAINER_SEMANTICS" in wrong
