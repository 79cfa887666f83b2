"""Teachers: chains, self-distillation, their data fractions, their targets, and teachers that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import CPU, bits, session_of, train
from pydantic import ValidationError

from kdtune.clips.dataset import TrialData
from kdtune.clips.synthetic import make_synthetic
from kdtune.config.load import load_sweep, load_trial
from kdtune.config.trial import TrialConfig
from kdtune.errors import ConfigError
from kdtune.store import StoreFiles
from kdtune.train.checkpoint import trained_weights
from kdtune.train.inputs import training_samples
from kdtune.train.samples import Samples
from kdtune.train.session import Session
from kdtune.train.targets import BLOCK, Targets, load_teacher

SHORT = {"epochs": 1, "stages": {"late": 1}}


def trial_of(form: dict[str, Any], **changes: Any) -> TrialConfig:
    return TrialConfig.model_validate({**form, **SHORT, **changes})


# ---- chains and self-distillation ------------------------------------------------------------------------------------


def test_a_teacher_may_have_had_a_teacher(trial_form: dict[str, Any], prepared: Session, tmp_path: Path) -> None:
    first = {"student": {"backbone": "c3d", "width": 4}}
    second = {"student": {"backbone": "r21d", "width": 4}, "teacher": first}
    config = trial_of(trial_form, teacher=second)
    store = StoreFiles(tmp_path)
    ended = train(config, store, prepared)
    assert config.teacher is not None
    assert config.teacher.teacher is not None
    keys = [prepared.key(c) for c in (config, config.teacher, config.teacher.teacher)]
    assert sorted(path.name for path in (tmp_path / "trials").iterdir()) == sorted(keys)
    assert all(store.trial(key).result() is not None for key in keys)
    # The middle one learnt from the first, so it is another trial than the same network from scratch.
    alone = trial_of(trial_form, teacher={**second, "teacher": None})
    assert bits(train(alone, store, prepared)) != bits(ended)


def test_a_session_says_once_that_it_trains_a_teacher_and_how_far(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session, loss = session_of(StoreFiles(tmp_path), prepared), trial_form["loss"]
    teacher = {"student": {"backbone": "c3d", "width": 4}, "epochs": 2, "stages": {"late": 2}}
    for weight in (1.0, 0.5):
        config = trial_of(trial_form, teacher=teacher, loss={**loss, "lambda": weight})
        for _ in session.trial(config, CPU):
            pass
    assert config.teacher is not None
    first, *epochs = [line for line in capsys.readouterr().err.splitlines() if "teacher" in line]
    assert first == f"kdtune: first the teacher c3d width 4: 2 epochs, trial {session.key(config.teacher)[:12]}…"
    said = [line.partition(" (")[0] for line in epochs]
    assert said == [f"kdtune: teacher c3d width 4: epoch {epoch}/2" for epoch in (1, 2)]


def test_self_distillation_with_the_same_seed_has_the_scratch_trial_as_teacher(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    scratch, student = trial_of(trial_form), trial_of(trial_form, teacher={})
    assert student.teacher is not None
    assert prepared.key(student.teacher) == prepared.key(scratch)
    store = StoreFiles(tmp_path)
    before = bits(train(scratch, store, prepared))
    ended = train(student, store, prepared)
    assert len(list((tmp_path / "trials").iterdir())) == 2
    assert bits(ended) != before
    assert ended.rows()[0]["train"]["distill"] > 0


def chained(sweep_form: dict[str, Any], **teachers: Any) -> dict[str, Any]:
    search = {**sweep_form["search"], "space": {"teacher": [*teachers]}, "sampler": "grid"}
    return {**sweep_form, "teachers": teachers, "search": search}


def test_a_sweeps_teacher_names_its_own_teacher(sweep_form: dict[str, Any], tmp_path: Path) -> None:
    big, small = {"student": {"backbone": "c3d", "width": 8}}, {"student": {"backbone": "c3d", "width": 4}}
    file = tmp_path / "chain.yaml"
    file.write_text(yaml.safe_dump(chained(sweep_form, big=big, small={**small, "teacher": "big"})))
    sweep = load_sweep(file)
    config = sweep.build(sweep.blocks()[0], {"teacher": "small"}, 0)
    assert config.teacher is not None
    assert config.teacher.teacher is not None
    assert [config.teacher.student.width, config.teacher.teacher.student.width] == [8 // 2, 8]
    # What `big` leaves out comes from the sweep's trial, not from `small`.
    assert config.teacher.teacher == sweep.teacher("big", sweep.blocks()[0])


@pytest.mark.parametrize(
    ("teachers", "message"),
    [
        ({"a": {"teacher": "b"}}, "teachers.a.teacher: unknown teacher, got 'b'"),
        ({"a": {"teacher": "b"}, "b": {"teacher": "a"}}, "teachers.a.teacher: forms a circle: a ← b ← a"),
        ({"a": {"data": {"fraction": "some"}}}, "teachers.a.data.fraction"),
        ({"a": {"clip": {"size": 64, "resize": [200, 270]}}}, "crop must be the same share of the picture"),
        ({"a": {"loss": {"target": "action"}}}, "the teacher's loss.target must be the student's pretext"),
        ({"a": {"start": {"student": {"width": 8}}}}, "start must be of the same network r3d depth 10 width"),
    ],
)
def test_teachers_that_cannot_be_are_refused_with_the_file(
    sweep_form: dict[str, Any], tmp_path: Path, teachers: dict[str, Any], message: str
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(chained(sweep_form, **teachers)))
    with pytest.raises(ConfigError) as caught:
        load_sweep(file)
    assert message in str(caught.value)


# ---- how much of the data a teacher has seen -------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "expected"), [("match", [1.0, 0.5]), (0.75, [0.75, 0.75]), (None, [1.0, 1.0])])
def test_a_teachers_fraction_is_a_value_or_its_students(
    sweep_form: dict[str, Any], tmp_path: Path, said: Any, expected: list[float]
) -> None:
    data = {} if said is None else {"data": {"fraction": said}}
    file = tmp_path / "match.yaml"
    file.write_text(yaml.safe_dump(chained(sweep_form, a={"student": {"backbone": "c3d", "width": 4}, **data})))
    sweep = load_sweep(file)
    got = [sweep.build(block, {"teacher": "a"}, 0).teacher for block in sweep.blocks()]
    assert [teacher.data.fraction for teacher in got if teacher is not None] == expected


def test_match_in_a_trial_file_is_the_trials_fraction(trial_form: dict[str, Any]) -> None:
    form = {**trial_form, "data": {**trial_form["data"], "fraction": 0.5}}
    config = trial_of(form, teacher={"data": {"fraction": "match"}, "student": {"backbone": "c3d"}})
    assert config.teacher is not None
    assert config.teacher.data == config.data


# ---- what they teach -------------------------------------------------------------------------------------------------


def test_relations_and_features_are_the_teachers_own_of_the_very_samples(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    """Distil from a wider 3D teacher to a 2D student, with β and γ and no logits."""
    student = {"backbone": "tdn_light", "width": 4}
    teacher = {"student": {"backbone": "c3d", "width": 6}}
    loss = {**trial_form["loss"], "lambda": 0.0, "beta": 0.5, "gamma": 0.25}
    config = trial_of(trial_form, student=student, teacher={**teacher, "loss": {"lambda": 1.0}}, loss=loss)
    store = StoreFiles(tmp_path)
    files = train(config, store, prepared)
    terms = files.rows()[0]["train"]
    assert set(terms) == {"loss", "pretext", "contrast", "relations", "features", "pretext_accuracy"}
    total = terms["pretext"] + 0.5 * terms["contrast"] + 0.5 * terms["relations"] + 0.25 * terms["features"]
    assert terms["loss"] == pytest.approx(total, rel=1e-5)

    session = Session(store, dict(prepared.folders))
    data = TrialData.of(config, session.clips(config))
    assert config.teacher is not None
    targets = Targets(
        Samples(config, data, CPU), session.key(config.teacher), store, lambda: session.weights(config.teacher, CPU)
    )
    taught = targets.epoch(1)
    assert set(taught) == {"relations", "features"}
    assert taught["features"].shape == (data.size, 3, 48)
    weights = trained_weights(session.files(config.teacher))
    network = load_teacher(config.teacher, weights, data.classes, False, CPU)
    with torch.no_grad():
        block = training_samples(config, data, 1, np.arange(min(BLOCK, len(data.order))), CPU)
        features = network.features(block.clips).double().numpy()[: data.size]
    np.testing.assert_allclose(taught["features"].numpy(), features, rtol=1e-5, atol=1e-7)
    for sample in range(data.size):
        f = features[sample]
        pairs = [(0, 1), (0, 2), (1, 2)]
        cosines = [f[i] @ f[j] / np.linalg.norm(f[i]) / np.linalg.norm(f[j]) for i, j in pairs]
        lengths = np.array([np.linalg.norm(f[i] - f[j]) for i, j in pairs])
        expected = [*cosines, *(lengths / lengths.mean())]
        np.testing.assert_allclose(taught["relations"][sample].numpy(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_stopped_trial_with_a_projector_ends_in_the_same_bits(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    loss = {**trial_form["loss"], "lambda": 0.5, "beta": 0.5, "gamma": 0.5}
    teacher = {"student": {"backbone": "c3d", "width": 4}, **SHORT}
    config = TrialConfig.model_validate({**trial_form, "teacher": teacher, "loss": loss})
    whole = train(config, StoreFiles(tmp_path / "whole"), prepared)
    session = Session(StoreFiles(tmp_path / "stopped"), dict(prepared.folders))
    run = session.trial(config, CPU)
    next(run)
    run.close()
    assert bits(train(config, StoreFiles(tmp_path / "stopped"), prepared)) == bits(whole)


def test_beta_and_gamma_count_only_with_a_teacher(trial_form: dict[str, Any], prepared: Session) -> None:
    plain = trial_of(trial_form)
    weighted = trial_of(trial_form, loss={**trial_form["loss"], "beta": 0.5, "gamma": 0.5})
    assert prepared.key(plain) == prepared.key(weighted)
    teacher = {"student": {"backbone": "c3d", "width": 4}}
    keys = {
        prepared.key(trial_of(trial_form, teacher=teacher, loss={**trial_form["loss"], **weights}))
        for weights in ({}, {"beta": 0.5}, {"gamma": 0.5}, {"lambda": 0.0, "beta": 0.5}, {"lambda": 0.0})
    }
    assert len(keys | {prepared.key(plain)}) == 5
    with pytest.raises(ValidationError, match="beta needs the three clips"):
        trial_of(trial_form, loss={"target": "action", "beta": 0.5})


# ---- what only the data can tell -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_action_teachers_must_know_the_same_actions(trial_form: dict[str, Any], tmp_path: Path) -> None:
    root = tmp_path / "others"
    make_synthetic(root, classes=("SpinRight", "Fall", "Shrink"), groups=3, clips=2)
    teacher = {"student": {"backbone": "c3d", "width": 4}, "data": {"root": str(root)}}
    config = trial_of(trial_form, loss={"target": "action"}, teacher=teacher)
    session = Session(StoreFiles(tmp_path / "runs"))
    session.prepare(config)
    (problem,) = session.problems(config)
    assert "knows 3 actions (" in str(problem)
    assert "learns 4 (" in str(problem)
    # Features do not need common labels.
    features = trial_of(trial_form, loss={"target": "action", "lambda": 0.0, "gamma": 1.0}, teacher=teacher)
    assert session.problems(features) == []


def test_an_import_that_is_not_in_the_store_is_said_before_training(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    file = tmp_path / "trial.yaml"
    file.write_text(yaml.safe_dump({**trial_form, "teacher": {"imported": "0" * 32, "student": {"backbone": "c3d"}}}))
    config = load_trial(file)
    session = Session(StoreFiles(tmp_path / "runs"), dict(prepared.folders))
    (problem,) = session.problems(config)
    assert f"{'0' * 32} is not in" in str(problem)
    assert "for c3d width 4 at 8 frames of 24², residual" in str(problem)


def test_a_complete_trial_needs_its_imported_teacher_no_more(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    config = trial_of(trial_form, teacher={"imported": "0" * 32, "student": {"backbone": "c3d"}})
    session = Session(StoreFiles(tmp_path / "runs"), dict(prepared.folders))
    assert len(session.problems(config)) == 1
    session.files(config).write_result(
        {"epochs": 2, "stages": {}, "weights_sha256": "0", "seconds": 1.0, "profile": None}
    )
    assert session.problems(config) == []
    assert session.problems(trial_of(trial_form, teacher=config.model_dump(by_alias=True))) == []
