"""Variants of fine-tuning: the head alone, other clips, with a teacher; keys, bits and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import fuzz, fuzzed
from helpers import CPU, session_of, train
from hypothesis import strategies as st
from pydantic import ValidationError

from kdtune.clips.dataset import TrialData
from kdtune.config.key import canonical, restored, trial_key
from kdtune.config.sweep import SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.models.heads import build_network
from kdtune.plan.describe import described
from kdtune.plan.forecast import look_ahead
from kdtune.store import StoreFiles
from kdtune.train.checkpoint import trained_weights
from kdtune.train.inputs import training_samples
from kdtune.train.session import Session
from kdtune.train.targets import load_teacher

SHORT = {"epochs": 1, "stages": {"late": 1}}
TEACHER = {"student": {"backbone": "c3d", "width": 4}, **SHORT}


def of(**form: Any) -> TrialConfig:
    return TrialConfig.model_validate(form)


def finetuned(form: dict[str, Any], finetune: dict[str, Any], **more: Any) -> TrialConfig:
    found = of(**{**form, **SHORT, "finetune": {"epochs": 1, **finetune}, **more}).finetuned
    assert found is not None
    return found


def key_of(config: TrialConfig | None) -> str:
    assert config is not None
    return trial_key(config, lambda data: f"{data.dataset} {data.fraction}")


# ---- keys ------------------------------------------------------------------------------------------------------------


def test_what_is_said_as_it_was_keeps_the_key() -> None:
    plain = key_of(of(finetune={}).finetuned)
    clip = {"frames": 10, "size": 112, "modality": "residual", "resize": [128, 171]}
    for same in ({"clip": clip}, {"frozen": "none"}, {"distil": {"lambda": 1.0}}, {"distil": {"tau": 2.0}}):
        assert key_of(of(finetune=same).finetuned) == plain, same
    others = [
        {"frozen": "backbone"},
        *({"clip": {k: v}} for k, v in (("frames", 16), ("size", 64), ("modality", "rgb"))),
    ]
    keys = {key_of(of(finetune=other).finetuned) for other in others}
    taught = [{"distil": d} for d in ({"lambda": 1.0}, {"lambda": 1.0, "tau": 2.0}, {"gamma": 1.0})]
    keys |= {key_of(of(teacher=TEACHER, finetune=other).finetuned) for other in taught}
    assert len(keys | {plain, key_of(of(teacher=TEACHER, finetune={}).finetuned)}) == 9


@fuzzed
def test_a_fine_tuning_is_restored_from_its_form_or_refused_in_words(examples: int) -> None:
    clip = st.fixed_dictionaries(
        {},
        optional={
            "frames": st.integers(4, 20),
            "size": st.sampled_from([16, 32, 64, 112, 224]),
            "modality": st.sampled_from(["rgb", "residual"]),
            "resize": st.sampled_from([None, [40, 50], [128, 171]]),
        },
    )
    distil = st.fixed_dictionaries({}, optional={n: st.sampled_from([0, 0.5, 1.0]) for n in ("lambda", "gamma")})
    student = st.sampled_from(["r3d", "c3d", "mvit_v1_b", "tdn_light"])
    frozen, teacher = st.sampled_from(["none", "backbone"]), st.sampled_from([None, TEACHER])

    def check(clip: Any, distil: Any, student: str, frozen: str, teacher: Any) -> None:
        own = {"clip": clip, "distil": distil, "frozen": frozen}
        try:
            config = of(student={"backbone": student}, teacher=teacher, finetune=own).finetuned
        except ValidationError as error:
            told = [found["msg"] for found in error.errors()]
            config = None
        if config is None:
            assert all("but got" in message for message in told)
            return
        assert [getattr(config.clip, k) for k in clip if clip[k] is not None] == [
            tuple(v) if isinstance(v, list) else v for v in clip.values() if v is not None
        ]
        assert config.start is not None
        assert config.start.clip.frames == 10
        assert config.distils == (teacher is not None and any(distil.values()))
        form = canonical(config)
        assert canonical(restored(form, config.teacher, config.start)) == form

    fuzz(check, clip, distil, student, frozen, teacher, examples=examples)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"frozen": "backbone"}, "needs a start"),
        ({"finetune": {"clip": {"frames": 6}}}, "in fine-tuning frames must be cut into four chunks"),
        ({"student": {"backbone": "mvit_v1_b"}, "finetune": {"clip": {"frames": 16}}}, "in fine-tuning start must be"),
        ({"clip": {"size": 64}, "finetune": {"clip": {"resize": [32, 32]}}}, "in fine-tuning resize must be at least"),
        (
            {"teacher": TEACHER, "finetune": {"frozen": "backbone", "distil": {"gamma": 1.0}}},
            "in fine-tuning beta and gamma must be 0 where frozen is backbone",
        ),
    ],
)
def test_fine_tunings_that_cannot_be_are_refused(form: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        of(**form)
    (error,) = caught.value.errors()
    assert message in error["msg"]


# ---- training --------------------------------------------------------------------------------------------------------


def run(config: TrialConfig, folder: Path, prepared: Session) -> tuple[Session, dict[str, torch.Tensor]]:
    session = session_of(StoreFiles(folder), prepared)
    session.prepare(config)
    prepared.folders.update(session.folders)
    return session, trained_weights(train(config, session.store, session))


def test_the_head_alone_learns_what_is_computed_on_still_features(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    """Compute one step over all videos again, in double precision, from the start's features."""
    optimizer = {"batch": 1000, "lr": 0.5, "momentum": 0.0, "weight_decay": 0.0}
    config = finetuned(trial_form, {"frozen": "backbone", "optimizer": optimizer})
    session, weights = run(config, tmp_path, prepared)
    assert config.start is not None
    start = trained_weights(session.files(config.start))
    backbone = {name: value for name, value in weights.items() if name.startswith("backbone.")}
    assert all(torch.equal(value, start[name]) for name, value in backbone.items())
    data = TrialData.of(config, session.clips(config))
    network = load_teacher(config, weights, data.classes, False, CPU)
    batch = training_samples(config, data, 1, np.arange(data.size), CPU)
    with torch.no_grad():
        x = network.features(batch.clips)[:, 0].double().numpy()
    head = build_network(config, data.classes).head
    w, b = head.weight.detach().double().numpy(), head.bias.detach().double().numpy()
    logits = x @ w.T + b
    p = np.exp(logits - logits.max(1, keepdims=True))
    slope = (p / p.sum(1, keepdims=True) - np.eye(data.classes)[batch.labels.numpy()]) / len(x)
    np.testing.assert_allclose(weights["head.weight"].numpy(), w - 0.5 * slope.T @ x, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(weights["head.bias"].numpy(), b - 0.5 * slope.sum(0), rtol=1e-4, atol=1e-6)


def test_a_fine_tuned_teacher_teaches_its_actions_on_other_clips(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    finetune = {"clip": {"frames": 12, "modality": "rgb"}, "distil": {"lambda": 0.5, "tau": 2.0}}
    config = finetuned(trial_form, finetune, teacher=TEACHER)
    assert config.teacher is not None
    assert config.teacher.start is not None
    assert (config.teacher.student.backbone, config.teacher.loss.target, config.teacher.teacher) == (
        "c3d",
        "action",
        None,
    )
    assert config.teacher.clip == config.clip
    assert config.teacher.start.clip.frames == 8
    session, _ = run(config, tmp_path, prepared)
    terms = session.files(config).rows()[0]["train"]
    assert terms["loss"] == pytest.approx(terms["action"] + 0.5 * terms["distill"], rel=1e-5)
    assert session.files(config.teacher).result() is not None


def test_a_plan_counts_the_teachers_that_are_fine_tuned(sweep_form: dict[str, Any]) -> None:
    form = {**sweep_form, "trial": {**sweep_form["trial"], "finetune": {"distil": {"lambda": 1.0}}}}
    sweep = SweepConfig.model_validate(form)
    # In each of 2 blocks: 1 control, 4 candidates and 2 teachers.
    text = "\n".join(described(sweep))
    assert " + 12 fine-tunings" in text
    forecast = look_ahead(sweep, StoreFiles("nowhere"), None)
    tuned = [work.config for work in forecast.new.values() if work.config.loss.target == "action"]
    assert sorted(config.student.backbone for config in tuned if config.start is not None and not config.distils) == [
        "c3d",
        "r21d",
        "r3d",
        "r3d",
    ]
