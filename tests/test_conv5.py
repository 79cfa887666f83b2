"""`evaluation.features: conv5`: PCL's retrieval, against PCL's networks and its ranking, rewritten here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CPU
from networks import clips, network
from published_networks import config, pretrained, saved
from pydantic import ValidationError
from sklearn.metrics.pairwise import cosine_distances

from kdtune.clips.dataset import TrialData
from kdtune.config.network import SMALLEST_CONV5
from kdtune.config.trial import TrialConfig
from kdtune.models.conv5 import with_conv5
from kdtune.models.heads import PclNetwork, build_network
from kdtune.store import StoreFiles
from kdtune.train.checkpoint import final_weights
from kdtune.train.importing.imports import import_checkpoint
from kdtune.train.measuring.evaluate import evaluate
from kdtune.train.samples import Samples
from kdtune.train.session import Session

torch.set_num_threads(1)


def imported(theirs: torch.nn.Module, own: TrialConfig, folder: Path, store: StoreFiles) -> PclNetwork:
    ours = build_network(own).eval()
    files = import_checkpoint(saved(folder, theirs.state_dict()), own, store).files
    ours.load_state_dict(final_weights(files.checkpoint))
    return ours


@pytest.mark.parametrize("backbone", ["r3d", "r21d", "c3d"])
@torch.no_grad()
def test_features_are_those_of_pcls_networks(backbone: str, tmp_path: Path, store: StoreFiles) -> None:
    theirs, own = pretrained(backbone), config(backbone)
    ours = imported(theirs, own, tmp_path, store)
    x = clips(2, 2, 3, 8, 48, 48)
    pooled, compared = ours.evaluation_features(x, conv5=True)
    assert pooled.equal(ours.features(x))
    same, again = ours.evaluation_features(x, conv5=False)
    assert same is again
    assert same.equal(pooled)
    theirs.base_network.return_conv = True
    for c in range(2):
        torch.testing.assert_close(compared[:, c], theirs.base_network(x[:, c]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "frames", "size"), [("r3d", 16, 9216), ("r21d", 16, 9216), ("c3d", 16, 9216), ("r3d", 10, 9216)]
)
def test_a_clip_of_the_papers_has_as_many_features_as_pcl_says(backbone: str, frames: int, size: int) -> None:
    with torch.device("meta"):
        _, compared = with_conv5(network(backbone), torch.empty(1, 3, frames, 112, 112))
    assert compared.shape == (1, size)


@pytest.mark.parametrize("backbone", SMALLEST_CONV5)
def test_the_smallest_clips_are_as_stated(backbone: str) -> None:
    least = SMALLEST_CONV5[backbone]
    raw = {"student": {"backbone": backbone, "width": 8}, "evaluation": {"features": "conv5"}}
    TrialConfig.model_validate({**raw, "clip": {"frames": 8, "size": least}})
    with pytest.raises(
        ValidationError, match=rf"conv5 needs clip\.size >= {least} for {backbone}, but got {least - 2}"
    ):
        TrialConfig.model_validate({**raw, "clip": {"frames": 8, "size": least - 2}})
    with torch.device("meta"):
        net = network(backbone, width=8)
        assert with_conv5(net, torch.empty(2, 3, 8, least, least))[1].numel() > 0
        with pytest.raises(RuntimeError, match="too small"):
            with_conv5(net, torch.empty(2, 3, 8, least - 2, least - 2))


def test_a_network_without_such_a_stage_is_refused() -> None:
    raw = {"student": {"backbone": "s3d"}, "evaluation": {"features": "conv5"}}
    with pytest.raises(ValidationError, match=r"conv5 needs one of c3d, mc3_18, r21d, .*, but got s3d"):
        TrialConfig.model_validate(raw)


@torch.no_grad()
def test_retrieval_is_pcls_on_the_same_weights(
    trial_form: dict[str, Any], prepared: Session, tmp_path: Path, store: StoreFiles
) -> None:
    own = TrialConfig.model_validate({**trial_form, "evaluation": {"clips": 3, "features": "conv5"}})
    theirs = pretrained()
    theirs.base_network.return_conv = True
    data = TrialData.of(own, prepared.clips(own))
    network = imported(theirs, own, tmp_path, store)
    scores = evaluate(network, Samples(own, data, CPU)).scores
    plain = own.model_copy(update={"evaluation": own.evaluation.model_copy(update={"features": "pooled"})})
    pooled = evaluate(network, Samples(plain, data, CPU)).scores

    mean, std = (np.array(x, np.float32) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    top, left = ((stored - 24) // 2 for stored in own.clip.stored_size)

    def features(rows: np.ndarray) -> np.ndarray:
        videos = []
        for row in rows:
            frames = np.asarray(data.clips.frames(row))[:, top : top + 24, left : left + 24]
            frames = (frames.astype(np.float32) / 255 - mean) / std
            each = []
            for centre in np.linspace(4, len(frames) - 4, 3):
                clip = frames[int(centre - 4) : int(centre - 4) + 8]
                x = torch.from_numpy(np.roll(clip, 1, 0) - clip).permute(3, 0, 1, 2)[None]
                each.append(theirs.base_network(x)[0].numpy())
            videos.append(np.mean(each, 0))
        return np.array(videos)

    gallery, labels = features(data.train), data.labels[data.train]
    for split in ("validation", "test"):
        rows = getattr(data, split)
        nearest = np.argsort(cosine_distances(features(rows), gallery), axis=1)
        for k in (1, 5, 10, 20, 50):
            hits = [label in labels[order[:k]] for order, label in zip(nearest, data.labels[rows], strict=True)]
            assert scores[split][f"retrieval_{k}"] == pytest.approx(np.mean(hits))
        assert scores[split]["knn"] == scores[split]["retrieval_1"]
        assert scores[split]["linear"] == pooled[split]["linear"]
    assert scores != pooled
