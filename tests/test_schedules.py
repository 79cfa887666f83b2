"""Schedules of λ and τ: values, keys, the loss that a trial minimises in each epoch, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fuzzing import fuzz, fuzzed
from helpers import CPU, bits, stopped, train
from hypothesis import strategies as st

from kdtune.clips.dataset import TrialData
from kdtune.config.key import canonical, restored, trial_key
from kdtune.config.load import load_sweep
from kdtune.config.shape import shape_of
from kdtune.config.trial import TrialConfig
from kdtune.errors import ConfigError
from kdtune.models.heads import build_network
from kdtune.store import StoreFiles
from kdtune.tracking.record import row_metrics
from kdtune.train.checkpoint import load_part, trained_weights
from kdtune.train.inputs import training_samples
from kdtune.train.session import Session
from kdtune.train.targets import load_teacher

TEACHER = {"student": {"backbone": "c3d", "width": 4}, "epochs": 1, "stages": {"late": 1}}
LAMBDA, TAU = {"schedule": "linear", "from": 2.0, "to": 0.5}, {"from": 8.0, "to": 1.0}


def key_of(loss: dict[str, Any], **others: Any) -> str:
    config = TrialConfig.model_validate({"teacher": TEACHER, **others, "loss": loss})
    return trial_key(config, lambda _: "manifest")


@fuzzed
def test_a_schedule_goes_in_equal_steps_and_meets_both_ends(examples: int) -> None:
    positive = st.floats(1e-3, 1e3)

    def check(start: float, end: float, epochs: int) -> None:
        loss = {"lambda": {"from": start, "to": end}, "tau": {"from": end, "to": start}}
        config = TrialConfig.model_validate({"loss": loss, "epochs": epochs, "teacher": TEACHER})
        assert not isinstance(config.loss.tau, float)
        assert not isinstance(config.loss.lambda_, float)
        values = [config.loss.lambda_.at(epoch, epochs) for epoch in range(1, epochs + 1)]
        np.testing.assert_allclose(values, np.linspace(start, end, epochs), rtol=1e-12)
        assert values[0] == start
        assert epochs == 1 or values[-1] == end
        assert config.loss.tau.at(1, epochs) == end
        changes = epochs > 1 and start != end
        assert isinstance(canonical(config)["loss"]["lambda"], dict) == changes
        again = restored(canonical(config), config.teacher, None)
        assert canonical(again) == canonical(config)
        assert (key_of(loss, epochs=epochs) == key_of({"lambda": start, "tau": end}, epochs=epochs)) == (not changes)

    fuzz(check, positive, positive, st.integers(1, 300), examples=examples)


def test_a_schedule_counts_where_its_largest_value_does() -> None:
    off = {"lambda": {"from": 0, "to": 0}, "tau": TAU}
    assert key_of(off) == key_of({"lambda": 0.0}) == key_of({}, teacher=None)
    rising = TrialConfig.model_validate({"teacher": TEACHER, "loss": {"lambda": {"from": 0, "to": 1}}})
    assert rising.distils
    constant = TrialConfig.model_validate({"teacher": TEACHER, "loss": {"lambda": 1.0}})
    assert shape_of(rising, "cpu") == shape_of(constant, "cpu") != shape_of(constant, "cuda")
    assert key_of({"lambda": LAMBDA, "tau": TAU}, teacher=None) == key_of({}, teacher=None)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_each_epochs_loss_is_that_of_its_lambda_and_tau(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    """One step per epoch: recompute its loss from the weights before it, in double precision."""
    form = trial_form | {"epochs": 3, "stages": {"a": 1, "b": 2, "c": 3}, "teacher": TEACHER}
    form |= {"loss": {"alpha": 0.0, "lambda": LAMBDA, "tau": TAU}, "optimizer": {"batch": 1000, "lr": 0.01}}
    config = TrialConfig.model_validate(form)
    files = train(config, StoreFiles(tmp_path), prepared)
    session = Session(StoreFiles(tmp_path), dict(prepared.folders))
    data = TrialData.of(config, session.clips(config))
    assert config.teacher is not None
    teacher = load_teacher(config.teacher, trained_weights(session.files(config.teacher)), data.classes, True, CPU)
    network = build_network(config, data.classes)
    for epoch, row in enumerate(files.rows(), 1):
        if epoch > 1:
            weights = torch.load(files.stage_checkpoint("ab"[epoch - 2]))["network"]
            for part in ("backbone", "head"):
                load_part(getattr(network, part), weights, part)
        batch = training_samples(config, data, epoch, np.arange(data.size), CPU)
        with torch.no_grad():
            s, t = (n.logits(n.features(batch.clips)).double().numpy() for n in (network.train(), teacher))
        lam, tau = 2.0 - 0.75 * (epoch - 1), 8.0 - 3.5 * (epoch - 1)
        p, q = softmax(t / tau), softmax(s / tau)
        ce = -np.log(softmax(s)[np.arange(len(s)), batch.labels.numpy()]).mean()
        kl = tau**2 * (p * (np.log(p) - np.log(q))).sum(1).mean()
        assert row["train"]["distill"] == pytest.approx(kl, rel=1e-3)
        assert row["train"]["loss"] == pytest.approx(ce + lam * kl, rel=1e-4)
        assert row["scheduled"] == {"lambda": lam, "tau": tau}
        metrics = row_metrics(row)
        assert (metrics["lambda"], metrics["tau"]) == (lam, tau)
    plain = TrialConfig.model_validate(form | {"loss": {"alpha": 0.0}})
    assert all("scheduled" not in row for row in train(plain, StoreFiles(tmp_path), prepared).rows())


@pytest.mark.slow
def test_a_stopped_trial_with_schedules_ends_in_the_same_bits(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    loss = {**trial_form["loss"], "lambda": LAMBDA, "tau": TAU}
    config = TrialConfig.model_validate({**trial_form, "teacher": TEACHER, "loss": loss})
    whole = train(config, StoreFiles(tmp_path / "whole"), prepared)
    stopped(config, StoreFiles(tmp_path / "stopped"), prepared, 1)
    assert bits(train(config, StoreFiles(tmp_path / "stopped"), prepared)) == bits(whole)


def sweep_with(form: dict[str, Any], loss: dict[str, Any], space: dict[str, Any], tmp_path: Path) -> Path:
    trial = {**form["trial"], "loss": {**form["trial"]["loss"], **loss}}
    file = tmp_path / "scheduled.yaml"
    file.write_text(yaml.safe_dump({**form, "trial": trial, "search": {**form["search"], "space": space}}))
    return file


def test_a_schedules_ends_are_searched_by_path(sweep_form: dict[str, Any], tmp_path: Path) -> None:
    space = {"teacher": ["c3d"], "loss.lambda.to": {"range": [0.0, 1.0]}}
    sweep = load_sweep(sweep_with(sweep_form, {"lambda": LAMBDA}, space, tmp_path))
    config = sweep.build(sweep.blocks()[0], {"teacher": "c3d", "loss.lambda.to": 0.25}, 0)
    assert str(config.loss.lambda_) == "2 → 0.25"


@pytest.mark.parametrize(
    ("loss", "space", "message"),
    [
        ({}, {"loss.lambda.to": [0.5]}, "search.space.loss.lambda.to: needs a schedule at trial.loss.lambda"),
        ({"tau": TAU}, {"loss.tau.to": [2.0], "tau": [1.0]}, "a schedule and a part of it cannot both be set"),
        ({"tau": TAU}, {"loss.tau.to": [0.0]}, "search.space.loss.tau.to: should be greater than 0, got 0"),
        ({"tau": {"from": 4.0}}, {"lambda": [1.0]}, "trial.loss.tau.to: is missing"),
        ({"tau": {"from": 4.0, "to": 1.0, "by": 1}}, {"lambda": [1.0]}, "trial.loss.tau.by: unknown key"),
        ({"tau": {"from": 0, "to": 1.0}}, {"lambda": [1.0]}, "trial.loss.tau.from: should be greater than 0, got 0"),
    ],
)
def test_schedules_that_cannot_be_are_one_problem(
    sweep_form: dict[str, Any], tmp_path: Path, loss: dict[str, Any], space: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_sweep(sweep_with(sweep_form, loss, {"teacher": ["c3d"], **space}, tmp_path))
    (problem,) = caught.value.problems
    assert message in str(problem)
