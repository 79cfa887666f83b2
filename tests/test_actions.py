"""Action labels: `loss.target: action`, trials that start from others, and fine-tuning with its own key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CPU, bits, session_of, short_videos, train
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, top_k_accuracy_score

from kdtune.clips.dataset import TrialData
from kdtune.clips.synthetic import make_synthetic
from kdtune.config.trial import TrialConfig
from kdtune.models.heads import PclNetwork, build_network
from kdtune.store import StoreFiles, TrialFiles
from kdtune.train.checkpoint import final_weights, read_checkpoint
from kdtune.train.initial import initial_state
from kdtune.train.inputs import evaluation_samples, training_samples
from kdtune.train.measuring.probes import class_figures, nearest, retrieved
from kdtune.train.profile import state_digest
from kdtune.train.session import Session


def trial_of(form: dict[str, Any], **changes: Any) -> TrialConfig:
    return TrialConfig.model_validate({**form, **changes})


@pytest.fixture(scope="module")
def finetuning(trial_form: dict[str, Any]) -> TrialConfig:
    """Two epochs of pre-training, and three of fine-tuning at a learning rate whose effect shows."""
    finetune = {"epochs": 3, "optimizer": {"lr": 0.05}}
    return trial_of(trial_form, student={"backbone": "r3d", "width": 4}, finetune=finetune)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> StoreFiles:
    return StoreFiles(tmp_path_factory.mktemp("actions"))


@pytest.fixture(scope="module")
def pretrained(finetuning: TrialConfig, prepared: Session, store: StoreFiles) -> TrialFiles:
    return train(finetuning, store, prepared)


@pytest.fixture(scope="module")
def finetuned(finetuning: TrialConfig, prepared: Session, store: StoreFiles, pretrained: TrialFiles) -> TrialFiles:
    assert finetuning.finetuned is not None
    return train(finetuning.finetuned, store, prepared)


def network_of(files: TrialFiles, config: TrialConfig, data: TrialData) -> PclNetwork:
    network = build_network(config, data.classes)
    network.load_state_dict(final_weights(files.checkpoint))
    return network.eval()


# ---- single clips ----------------------------------------------------------------------------------------------------


def test_an_action_sample_is_one_clip_with_the_videos_label(finetuning: TrialConfig, prepared: Session) -> None:
    config = finetuning.finetuned
    assert config is not None
    data = TrialData.of(config, prepared.clips(config))
    batch = training_samples(config, data, 1, np.arange(6), CPU)
    assert batch.clips.shape == (6, 1, 3, 8, 24, 24)
    assert batch.labels.tolist() == data.labels[data.order[:6]].tolist()
    # Fine-tuning only crops, so a frame's pixels are among those of the video's frames.
    again = training_samples(config, data, 1, np.array([5, 0]), CPU)
    assert torch.equal(again.clips, batch.clips[[5, 0]])
    assert not torch.equal(training_samples(config, data, 2, np.arange(6), CPU).clips, batch.clips)


def test_videos_long_enough_for_a_clip_are_used_though_too_short_for_a_tuple(
    finetuning: TrialConfig, prepared: Session
) -> None:
    assert finetuning.finetuned is not None
    clips = prepared.clips(finetuning)
    shortest = int(clips.index["frames"].min())
    too_long = finetuning.model_copy(
        update={"clip": finetuning.clip.model_copy(update={"frames": shortest, "interval": 1})}
    )
    with pytest.raises(Exception, match="needs videos of at least"):
        TrialData.of(too_long, clips)
    assert too_long.finetuned is not None
    assert TrialData.of(too_long.finetuned, clips).size > 20


# ---- fine-tuning -----------------------------------------------------------------------------------------------------


def test_fine_tuning_starts_from_the_backbone_with_a_fresh_head(
    finetuning: TrialConfig, prepared: Session, pretrained: TrialFiles
) -> None:
    config = finetuning.finetuned
    assert config is not None
    data = TrialData.of(config, prepared.clips(config))
    before = final_weights(pretrained.checkpoint)
    fresh = initial_state(config, data, before, CPU).network.state_dict()
    assert fresh["head.weight"].shape == (4, 32)
    shared = [name for name in before if name.startswith("backbone.")]
    assert len(shared) > 50
    assert all(torch.equal(fresh[name], before[name]) for name in shared)
    other_seed = initial_state(config.model_copy(update={"seed": 1}), data, before, CPU).network.state_dict()
    assert not torch.equal(other_seed["head.weight"], fresh["head.weight"])


def test_fine_tuning_has_a_key_of_its_own_and_shares_the_pre_training(
    finetuning: TrialConfig, prepared: Session, pretrained: TrialFiles
) -> None:
    other = finetuning.model_copy(update={"finetune": finetuning.finetune.model_copy(update={"epochs": 9})})
    assert finetuning.finetuned is not None
    assert other.finetuned is not None
    key = prepared.key
    assert key(finetuning) == key(other) == key(finetuning.model_copy(update={"finetune": None})) == pretrained.key
    more = finetuning.model_copy(update={"seed": 1})
    assert more.finetuned is not None
    assert len({key(finetuning), key(finetuning.finetuned), key(other.finetuned), key(more.finetuned)}) == 4


def test_the_best_validation_loss_is_kept_and_measured(
    finetuning: TrialConfig, prepared: Session, finetuned: TrialFiles
) -> None:
    config, result = finetuning.finetuned, finetuned.result()
    assert config is not None
    assert result is not None
    losses = [row["validation"]["action_loss"] for row in finetuned.rows()]
    kept = int(np.argmin(losses)) + 1
    assert result["kept_epoch"] == kept
    assert result["weights_sha256"] == state_digest(final_weights(finetuned.checkpoint))
    # A trial that ends at that epoch ends with the same weights, unless the last epoch is the best.
    shorter = config.model_copy(update={"epochs": kept, "stages": {"finetune": kept}})
    short = train(shorter, StoreFiles(finetuned.folder.parents[2] / "short"), prepared)
    assert state_digest(read_checkpoint(short.checkpoint)["network"]) == result["weights_sha256"]
    data = TrialData.of(config, prepared.clips(config))
    batch = evaluation_samples(config, data, data.validation, CPU)
    network = network_of(finetuned, config, data)
    with torch.no_grad():
        logits = network.logits(network.features(batch.clips)).double()
    loss = float(torch.nn.functional.cross_entropy(logits, batch.labels))
    assert loss == pytest.approx(min(losses), rel=1e-6)


def test_a_fine_tuning_stopped_after_any_epoch_ends_in_the_same_bits(
    finetuning: TrialConfig,
    prepared: Session,
    store: StoreFiles,
    pretrained: TrialFiles,
    finetuned: TrialFiles,
    tmp_path: Path,
) -> None:
    config = finetuning.finetuned
    assert config is not None
    session = session_of(StoreFiles(tmp_path), prepared)
    for _ in range(config.epochs):
        done = len(session.files(config).rows())
        run = session.trial(config, CPU)
        for row in run:
            if row["epoch"] > done:
                break
        run.close()
    assert bits(train(config, StoreFiles(tmp_path), prepared)) == bits(finetuned)


def test_fine_tuning_on_another_data_set_has_that_sets_classes(
    finetuning: TrialConfig, prepared: Session, pretrained: TrialFiles, store: StoreFiles, tmp_path: Path
) -> None:
    """As in fine-tuning from UCF101 to HMDB51."""
    root = tmp_path / "others"
    with short_videos():
        make_synthetic(root, classes=("SpinRight", "Fall", "Shrink"), groups=4, clips=1)
    data = {"dataset": "synthetic", "root": str(root), "validation": 0.4}
    assert finetuning.finetune is not None
    finetune = {**finetuning.finetune.model_dump(by_alias=True), "data": data, "epochs": 1}
    config = TrialConfig.model_validate({**finetuning.model_dump(by_alias=True), "finetune": finetune})
    session = session_of(store, prepared)
    session.prepare(config)
    assert session.problems(config) == []
    assert session.key(config) == pretrained.key
    assert config.finetuned is not None
    files = train(config.finetuned, store, session)
    assert json.loads(files.classes("finetune").read_text())["test"]["actions"] == ["SpinRight", "Fall", "Shrink"]
    assert final_weights(files.checkpoint)["head.weight"].shape == (3, 32)


# ---- its figures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["validation", "test"])
def test_action_figures_are_scikit_learns_on_the_mean_of_the_clips_logits(
    split: str, finetuning: TrialConfig, prepared: Session, finetuned: TrialFiles
) -> None:
    config = finetuning.finetuned
    assert config is not None
    data = TrialData.of(config, prepared.clips(config))
    network, rows = network_of(finetuned, config, data), getattr(data, split)
    mean, std = (np.array(x, np.float32) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    height, width = config.clip.stored_size
    top, left = (height - 24) // 2, (width - 24) // 2
    logits = []
    for row in rows:
        video = np.asarray(data.clips.frames(row))[:, top : top + 24, left : left + 24]
        each = []
        for centre in np.linspace(4, len(video) - 4, config.evaluation.clips):  # like PCL's test clips
            start = int(centre - 4)
            frames = (video[start : start + 8].astype(np.float32) / 255 - mean) / std
            x = torch.from_numpy(np.roll(frames, 1, 0) - frames).permute(3, 0, 1, 2)[None]
            with torch.no_grad():
                each.append(network.head(network.backbone(x))[0].double().numpy())
        logits.append(np.mean(each, 0))
    truth, scores = data.labels[rows], np.array(logits)
    predicted = scores.argmax(1)
    figures = finetuned.stages()["finetune"][split]
    assert figures["top1"] == pytest.approx(float((predicted == truth).mean()))
    # With four classes the top five are all classes; the general case is tested below.
    assert figures["top5"] == 1.0
    labels = sorted(set(truth.tolist()))
    expected = precision_recall_fscore_support(truth, predicted, labels=labels, average="macro", zero_division=0)
    for name, value in zip(("precision", "recall", "f1"), expected[:3], strict=True):
        assert figures[name] == pytest.approx(value)
    table = json.loads(finetuned.classes("finetune").read_text())[split]
    assert table["actions"] == list(data.actions)
    assert table["confusion"] == confusion_matrix(truth, predicted, labels=range(4)).tolist()


def test_class_figures_and_retrieval_are_scikit_learns_on_random_input() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 6, 300), rng.integers(0, 7, 300)
    truth[truth == 5] = 6  # class 5 never occurs, but is predicted
    matrix = torch.from_numpy(confusion_matrix(truth, predicted, labels=range(7)))
    per_class, means = class_figures(matrix)
    expected = precision_recall_fscore_support(truth, predicted, labels=range(7), zero_division=0)
    for name, values in zip(("precision", "recall", "f1"), expected[:3], strict=True):
        np.testing.assert_allclose(per_class[name], values)
        assert means[name] == pytest.approx(float(np.delete(values, 5).mean()))
    train_x, queries = rng.normal(size=(80, 5)), rng.normal(size=(40, 5))
    labels, asked = rng.integers(0, 12, 80), rng.integers(0, 12, 40)
    order, _ = nearest(torch.from_numpy(train_x), torch.from_numpy(queries), 200)
    for k in (1, 5, 20, 200):
        hits = 0
        for query, label in zip(queries, asked, strict=True):
            cosine = train_x @ query / np.linalg.norm(train_x, axis=1) / np.linalg.norm(query)
            hits += label in labels[np.argsort(-cosine)[:k]]
        assert retrieved(order, torch.from_numpy(labels), torch.from_numpy(asked), k) == pytest.approx(hits / 40)
    scores = rng.normal(size=(50, 9))
    answers = rng.integers(0, 9, 50)
    top5 = torch.from_numpy(scores).topk(5, dim=1).indices
    ours = float((top5 == torch.from_numpy(answers).unsqueeze(1)).any(1).double().mean())
    assert ours == pytest.approx(top_k_accuracy_score(answers, scores, k=5, labels=range(9)))


# ---- distilling actions ----------------------------------------------------------------------------------------------


def test_action_logits_are_distilled_from_an_action_teacher(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    """KD §3.3 read literally: teacher and student start from their own PCL-trained backbones."""
    short = {"epochs": 1, "stages": {"late": 1}}
    pretext = {"loss": {**trial_form["loss"], "target": "pretext"}, **short}
    teacher = {"student": {"backbone": "c3d", "width": 4}, "start": pretext, **short}
    config = trial_of(
        {**trial_form, **short}, loss={"target": "action", "lambda": 0.7, "gamma": 0.5}, start=pretext, teacher=teacher
    )
    files = train(config, StoreFiles(tmp_path), prepared)
    (row,) = files.rows()
    terms = row["train"]
    assert set(terms) == {"loss", "action", "distill", "features", "action_accuracy"}
    assert terms["distill"] > 0
    assert 0 < terms["features"] < 4
    assert terms["loss"] == pytest.approx(terms["action"] + 0.7 * terms["distill"] + 0.5 * terms["features"], rel=1e-5)
    assert {"top1", "f1", "action", "action_loss", "knn"} <= set(row["evaluation"]["validation"])
    # Four trials in all: two pretext starts, the teacher, the student.
    assert len(list((tmp_path / "trials").iterdir())) == 4
