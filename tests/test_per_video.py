"""Every video's outcome stands in the row of a stage, and the figures are the outcomes' means."""

from __future__ import annotations

from statistics import fmean

import numpy as np
import pytest
import torch
from helpers import CPU

from kdtune.clips.dataset import TrialData
from kdtune.config.metrics import PER_VIDEO, outcomes
from kdtune.config.trial import TrialConfig
from kdtune.errors import DamageError
from kdtune.models.heads import build_network
from kdtune.store import StoreFiles
from kdtune.store.contents import EpochRecord
from kdtune.train.inputs import evaluation_samples
from kdtune.train.measuring.evaluate import Evaluation, evaluate
from kdtune.train.samples import Samples
from kdtune.train.session import Session
from kdtune.train.soundness import per_video


def measured(config: TrialConfig, prepared: Session) -> tuple[Evaluation, TrialData]:
    data = TrialData.of(config, prepared.clips(config))
    return evaluate(build_network(config, data.classes), Samples(config, data, CPU)), data


@pytest.mark.parametrize("labels", ["each", "drawn"])
@torch.no_grad()
def test_a_videos_outcome_counts_its_right_answers(tiny: TrialConfig, prepared: Session, labels: str) -> None:
    config = tiny.model_copy(update={"evaluation": tiny.evaluation.model_copy(update={"labels": labels})})
    found, data = measured(config, prepared)
    network = build_network(config, 5).eval()
    batch = evaluation_samples(config, data, data.test, CPU)
    right = np.zeros(len(data.test), int)
    if labels == "each":
        for label in range(5):
            tuples = batch.clips[:, [0, 1 + label, 6]]
            right += (network.logits(network.features(tuples)).argmax(1) == label).numpy()
        assert found.scores["test"]["pretext_majority"] == 1 / 5
    else:
        right += 5 * (network.logits(network.features(batch.clips)).argmax(1) == batch.labels).numpy()
    assert found.per_video["test"]["pretext"] == "".join(map(str, right))
    assert found.scores["test"]["pretext"] == right.sum() / (5 * len(right))
    # A constant answer scores a fifth, whatever it is.
    assert labels == "drawn" or right.sum() >= len(right) - 1


@pytest.mark.parametrize("target", ["pretext", "action"])
def test_figures_are_the_means_of_the_outcomes(tiny: TrialConfig, prepared: Session, target: str) -> None:
    config = TrialConfig.model_validate({**tiny.model_dump(by_alias=True), "loss": {"target": target, "negatives": 16}})
    found, data = measured(config, prepared)
    head = {"pretext"} if target == "pretext" else {"action", "top1"}
    for split, rows in (("validation", data.validation), ("test", data.test)):
        texts = found.per_video[split]
        assert set(texts) == {"knn", "linear", "retrieval_1"} | head
        for metric, text in texts.items():
            assert len(text) == len(rows)
            assert fmean(outcomes(metric, text)) == pytest.approx(found.scores[split][metric], abs=1e-12)


def row_of(reported: float, **texts: object) -> EpochRecord:
    scores = dict.fromkeys(PER_VIDEO, reported)
    return {"epoch": 2, "stage": "late", "evaluation": {"validation": scores}, "per_video": {"validation": texts}}  # type: ignore[typeddict-item]


def test_outcomes_are_read_only_where_they_give_what_the_row_reports(store: StoreFiles) -> None:
    files = store.trial("0" * 32)
    row = row_of(0.4, knn="01010", pretext="5320")
    assert per_video(files, row, "validation", "knn") == "01010"
    assert per_video(files, row, "test", "knn") is None
    assert per_video(files, row, "validation", "linear") is None
    assert outcomes("pretext", "5320") == (1.0, 0.6, 0.4, 0.0)
    for text in ("01011", "", "0201", "01x10", "١٠١٠٠", 1010):
        with pytest.raises(DamageError, match=r"reports knn 0\.4 on validation in epoch 2, but its videos' outcomes"):
            per_video(files, row_of(0.4, knn=text), "validation", "knn")
    for damaged in ({"per_video": 3}, {"per_video": {"validation": "knn"}}, {"evaluation": None}):
        with pytest.raises(DamageError):
            per_video(files, {**row, **damaged}, "validation", "knn")  # type: ignore[typeddict-item]
