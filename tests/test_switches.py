"""Each of the trainer's switches has its effect: stages, best so far, best weights, precision, evaluation transform."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CPU, bits, train

from kdtune.clips.dataset import TrialData
from kdtune.config.metrics import METRICS, available, best
from kdtune.config.trial import TrialConfig
from kdtune.models.heads import build_network
from kdtune.store import StoreFiles
from kdtune.train.checkpoint import read_checkpoint
from kdtune.train.inputs import evaluation_draw, evaluation_samples
from kdtune.train.profile import make_deterministic, state_digest
from kdtune.train.session import Session


def trial_of(form: dict[str, Any], **changes: Any) -> TrialConfig:
    return TrialConfig.model_validate({**form, **changes})


# ---- stages ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def every(trial_form: dict[str, Any], prepared: Session, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The rows of a trial that is evaluated every epoch, with a rate so high that its best epoch is not its last."""
    optimizer = {"lr": 0.2}
    config = trial_of(trial_form, epochs=5, stages={"early": 2, "late": 5}, stage={"every": 1}, optimizer=optimizer)
    return train(config, StoreFiles(tmp_path_factory.mktemp("every")), prepared).rows()


def test_a_stage_records_the_value_at_the_boundary_and_the_best_so_far(every: list[dict]) -> None:
    assert [row.get("stage") for row in every] == [None, "early", None, None, "late"]
    for split in ("validation", "test"):
        found = [metric for metric in METRICS if available(metric, "pretext")]
        for metric in found:
            values = [row["evaluation"][split][metric] for row in every]
            bests = [row["evaluation"][split][f"best_{metric}"] for row in every]
            worst_first = max if metric.endswith("_loss") else min
            assert bests == [best(metric, values[: n + 1]) for n in range(len(values))]
            assert bests[-1] == -worst_first(-v for v in values)
        figures = every[-1]["evaluation"][split]
        assert figures["pretext_majority"] >= 1 / 5
        assert {f"best_{metric}" for metric in found} == {name for name in figures if name.startswith("best_")}
    curves = [[row["evaluation"]["validation"][m] for row in every] for m in ("knn", "linear", "pretext")]
    assert any(curve[-1] < max(curve) for curve in curves), "nothing here tells best from last"


def test_best_weights_are_measured_and_kept(trial_form: dict[str, Any], prepared: Session, tmp_path: Path) -> None:
    restless = {"optimizer": {"lr": 0.1}, "epochs": 3, "stages": {"early": 1, "late": 3}}
    kept = train(trial_of(trial_form, **restless, stage={"weights": "best"}), StoreFiles(tmp_path / "best"), prepared)
    last = train(trial_of(trial_form, **restless), StoreFiles(tmp_path / "last"), prepared)
    losses = [row["validation"]["pretext_loss"] for row in kept.rows()]
    best_epoch = int(np.argmin(losses)) + 1
    assert best_epoch < 3, "the last epoch is the best: nothing is tested"
    result = kept.result()
    assert result is not None
    assert result["kept_epoch"] == best_epoch
    # Training itself is the same; the figures at the stages are not.
    assert [row["train"] for row in kept.rows()] == [row["train"] for row in last.rows()]
    parts = read_checkpoint(kept.checkpoint)
    assert result["weights_sha256"] == state_digest(parts["best"]["network"])
    assert result["weights_sha256"] != state_digest(parts["network"])
    assert kept.stages()["late"]["validation"]["pretext_loss"] == pytest.approx(min(losses))


def test_between_stages_the_head_of_the_epoch_s_own_weights_is_enough(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    """As PCL's code: its head after every epoch on freshly augmented samples, and the best model beside it."""
    restless = {"optimizer": {"lr": 0.1}, "epochs": 4, "stages": {"early": 2, "late": 4}}
    restless |= {"evaluation": {**trial_form["evaluation"], "transform": "train", "labels": "drawn", "draws": "epoch"}}
    config = trial_of(trial_form, **restless, stage={"weights": "best", "every": 1, "between": "head"})
    rows = train(config, StoreFiles(tmp_path / "head"), prepared).rows()
    head = ["pretext", "pretext_loss", "pretext_majority"]
    for row in rows:
        if "stage" not in row:
            assert [name for name in row["evaluation"]["test"] if not name.startswith("best_")] == head
        else:
            assert "knn" in row["evaluation"]["test"]
    late, own = rows[-1]["evaluation"]["validation"], [row["validation"]["pretext"] for row in rows]
    kept = [row["evaluation"]["validation"]["pretext"] for row in rows if "stage" in row]
    assert late["best_pretext"] == max(*own, *kept)
    assert len({row["validation"]["pretext_majority"] for row in rows}) > 1, "the samples are the same in every epoch"
    # The evaluation changes nothing of training.
    plain = train(trial_of(trial_form, **restless, stage={"weights": "best"}), StoreFiles(tmp_path / "plain"), prepared)
    assert [row["validation"] for row in plain.rows()] == [row["validation"] for row in rows]
    assert bits(plain)[1] == bits(train(config, StoreFiles(tmp_path / "head"), prepared))[1]


def test_how_stages_are_read_is_no_part_of_the_key(trial_form: dict[str, Any], prepared: Session) -> None:
    config = trial_of(trial_form)
    assert prepared.key(config) == prepared.key(trial_of(trial_form, stage={"reduce": "best"}))
    others = [{"weights": "best"}, {"every": 1}, {"every": 1, "between": "head"}]
    assert len({prepared.key(c) for c in (config, *(trial_of(trial_form, stage=other) for other in others))}) == 4
    assert prepared.key(config) == prepared.key(trial_of(trial_form, stage={"between": "head"}))


# ---- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_precision_is_recorded_repeats_and_changes_what_it_should(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    short = {"epochs": 1, "stages": {"late": 1}}
    runs = {
        name: train(trial_of(trial_form, **short, precision=name), StoreFiles(tmp_path / name), prepared)
        for name in ("fp32", "tf32", "bf16")
    }
    again = train(trial_of(trial_form, **short, precision="bf16"), StoreFiles(tmp_path / "again"), prepared)
    assert bits(again) == bits(runs["bf16"])
    assert bits(runs["bf16"]) != bits(runs["fp32"])
    # TensorFloat-32 exists on CUDA only: on a CPU the bits are the same, under another key.
    assert bits(runs["tf32"]) == bits(runs["fp32"])
    assert len({run.key for run in runs.values()}) == 3
    for name, run in runs.items():
        result = run.result()
        assert result is not None
        assert result["profile"]["precision"] == name
    loss = [run.rows()[0]["train"]["loss"] for run in runs.values()]
    assert loss[2] == pytest.approx(loss[0], rel=0.05)


def test_bf16_computes_the_backbone_in_bfloat16_and_gives_float32(trial_form: dict[str, Any]) -> None:
    network = build_network(trial_of(trial_form, precision="bf16"))
    inside: list[torch.dtype] = []
    network.backbone.register_forward_hook(lambda _module, _input, output: inside.append(output.dtype))
    features = network.features(torch.randn(2, 3, 3, 8, 32, 32))
    assert set(inside) == {torch.bfloat16}
    assert features.dtype == torch.float32
    assert {p.dtype for p in network.parameters()} == {torch.float32}


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("tf32", True), ("bf16", False)])
def test_tf32_is_set_explicitly(trial_form: dict[str, Any], precision: str, allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not allowed
    make_deterministic(trial_of(trial_form, precision=precision))
    assert torch.backends.cudnn.allow_tf32 is allowed
    assert torch.backends.cuda.matmul.allow_tf32 is allowed
    assert torch.backends.cudnn.deterministic
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"]


# ---- evaluation transform --------------------------------------------------------------------------------------------


def test_validation_is_on_centre_crops_or_augmented_as_in_training(
    trial_form: dict[str, Any], prepared: Session
) -> None:
    batches = {}
    for transform in ("centre", "train"):
        config = trial_of(trial_form, evaluation={**trial_form["evaluation"], "transform": transform})
        data = TrialData.of(config, prepared.clips(config))
        batches[transform] = evaluation_samples(config, data, data.validation, CPU)
        again = evaluation_samples(config.model_copy(update={"seed": 9}), data, data.validation, CPU)
        assert torch.equal(again.clips, batches[transform].clips), "every trial is asked the same"
    assert torch.equal(batches["centre"].labels, batches["train"].labels)
    same = [torch.equal(a, b) for a, b in zip(batches["centre"].clips, batches["train"].clips, strict=True)]
    assert not any(same)


def test_augmented_validation_is_drawn_anew_each_epoch_where_that_is_asked_for(
    trial_form: dict[str, Any], prepared: Session
) -> None:
    def drawn(epoch: int, **changes: str) -> torch.Tensor:
        config = trial_of(trial_form, evaluation={**trial_form["evaluation"], **changes})
        data = TrialData.of(config, prepared.clips(config))
        return evaluation_samples(config, data, data.validation[:4], CPU, evaluation_draw(config, epoch)).clips

    anew = {"transform": "train", "draws": "epoch"}
    assert not torch.equal(drawn(1, **anew), drawn(2, **anew))
    assert torch.equal(drawn(2, **anew), drawn(2, **anew))
    assert torch.equal(drawn(1, transform="train"), drawn(2, transform="train"))
    assert torch.equal(drawn(1, draws="epoch"), drawn(2))  # centre crops have nothing to draw
    config = trial_of(trial_form, evaluation={**trial_form["evaluation"], "draws": "epoch"})
    assert prepared.key(config) == prepared.key(trial_of(trial_form))


def test_without_normalisation_residuals_are_differences_of_plain_frames(
    trial_form: dict[str, Any], prepared: Session
) -> None:
    plain, normal = (trial_of(trial_form, clip={**trial_form["clip"], "normalize": n}) for n in (False, True))
    data = TrialData.of(plain, prepared.clips(plain))
    a, b = (evaluation_samples(config, data, data.test, CPU).clips for config in (plain, normal))
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1, 1)
    torch.testing.assert_close(a / std, b, rtol=1e-4, atol=1e-5)
    assert a.abs().max() <= 1
