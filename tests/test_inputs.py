"""From videos to batches: the samples of training and evaluation, assembled by hand."""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from fuzzing import fuzz, fuzzed
from helpers import FakeClips
from hypothesis.strategies import integers

from kdtune.clips.augment import augment
from kdtune.clips.dataset import TrialData
from kdtune.clips.tuples import draw_clips, draw_each_label, draw_tuples
from kdtune.config.trial import TrialConfig
from kdtune.train.inputs import evaluation_samples, evenly_spaced_clips, spaced_starts, training_samples

torch.set_num_threads(1)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # ImageNet
SIDE, FRAMES, CPU = 24, 8, torch.device("cpu")
FORM = {"clip": {"frames": FRAMES, "size": SIDE, "interval": 2, "resize": [28, 37]}}
CONFIG = TrialConfig.model_validate(FORM)


@pytest.fixture(scope="module")
def data() -> TrialData:
    lengths = [60, 70, 80, 90]
    clips = FakeClips(lengths, 28, 37)
    rows, actions = np.arange(4), ("bow", "jump", "wave")
    return TrialData(clips, rows[::-1].copy(), 4, rows, rows, np.array(lengths), np.array([0, 2, 1, 2]), actions, 5)


def normal(frames: np.ndarray) -> np.ndarray:
    """uint8 (T, H, W, 3) → normalised centre crop (3, T, S, S)."""
    top, left = (frames.shape[1] - SIDE) // 2, (frames.shape[2] - SIDE) // 2
    crop = frames[:, top : top + SIDE, left : left + SIDE]
    return ((crop / 255 - MEAN) / STD).transpose(3, 0, 1, 2)


@pytest.mark.parametrize("modality", ["rgb", "residual"])
def test_an_evaluation_sees_normalised_centre_crops(data: TrialData, modality: str) -> None:
    config = CONFIG.model_copy(
        update={
            "clip": CONFIG.clip.model_copy(update={"modality": modality}),
            "evaluation": CONFIG.evaluation.model_copy(update={"clips": 3}),
        }
    )
    out = evenly_spaced_clips(config, data, np.array([2, 0]), CPU)
    assert out.shape == (2, 3, 3, FRAMES, SIDE, SIDE)
    for i, row in enumerate((2, 0)):
        length = data.lengths[row]
        for c, start in enumerate((0, (length - FRAMES) // 2, length - FRAMES)):
            expected = normal(data.clips.frames(row)[start : start + FRAMES])
            if modality == "residual":
                expected = np.roll(expected, 1, 1) - expected
            np.testing.assert_allclose(out[i, c].numpy(), expected, atol=1e-5)


def pcl_starts(length: int, frames: int, n: int) -> list[int]:
    """Return the starts of PCL's test clips, whose centres linspace spreads and cuts to whole frames (ucf101.py)."""
    centres = np.linspace(frames / 2, length - frames / 2, n)
    return [int(centre - frames / 2) for centre in centres]


@pytest.mark.parametrize("frames", [8, 10, 16])
def test_evenly_spaced_clips_start_where_pcls_do(frames: int) -> None:
    lengths = np.arange(frames, frames + 2000)
    assert spaced_starts(lengths, frames, 10).tolist() == [pcl_starts(length, frames, 10) for length in lengths]


def test_a_start_that_a_float_would_cut_short() -> None:
    # 675 · 7/9 is 525; as floats, 7/9 · 675 is a little less.
    assert spaced_starts(np.array([691]), 16, 10)[0, 7] == pcl_starts(691, 16, 10)[7] == 525


@fuzzed
def test_evenly_spaced_starts_are_exact(examples: int) -> None:
    def check(frames: int, room: int, n: int) -> None:
        (starts,) = spaced_starts(np.array([frames + room]), frames, n).tolist()
        assert starts == [floor(Fraction(k * room, n - 1)) if n > 1 else 0 for k in range(n)]

    fuzz(check, integers(1, 4096), integers(0, 10**6), integers(1, 200), examples=examples)


@pytest.mark.parametrize("labels", ["each", "drawn"])
def test_evaluation_samples_are_the_same_questions_for_every_trial(data: TrialData, labels: str) -> None:
    rows = np.arange(4)
    config = TrialConfig.model_validate({**FORM, "evaluation": {"labels": labels}})
    draw, clips = (
        (draw_each_label, [0, 5, 6]) if labels == "each" else (draw_tuples, [0, None, 2])
    )  # 5 is the remote clip
    batch = evaluation_samples(config, data, rows, CPU)
    draws = draw(config, seed=0, purpose="evaluate", epoch=0, samples=rows, lengths=data.lengths, train=False)
    assert np.array_equal(batch.labels.numpy(), draws.label)
    for i in range(4):
        for place, first in zip(clips, draws.start[i, [0, -2, -1]], strict=True):
            if place is not None:
                plain = normal(data.clips.frames(i)[first : first + FRAMES])
                np.testing.assert_allclose(batch.clips[i, place].numpy(), np.roll(plain, 1, 1) - plain, atol=1e-5)
    other = config.model_copy(update={"seed": 5, "augment": config.augment.model_copy(update={"flip_p": 1.0})})
    again = evaluation_samples(other, data, rows[::-1].copy(), CPU)
    assert torch.equal(again.clips.flip(0), batch.clips)
    assert torch.equal(again.labels.flip(0), batch.labels)


def test_an_evaluation_may_be_augmented_as_in_training(data: TrialData) -> None:
    config = TrialConfig.model_validate({**FORM, "evaluation": {"transform": "train", "labels": "drawn"}})
    batch = evaluation_samples(config, data, np.arange(4), CPU)
    named = {"seed": 0, "purpose": "evaluate", "epoch": 0, "samples": np.arange(4), "lengths": data.lengths}
    draws = draw_tuples(config, **named, train=True)
    assert draws.colour is not None
    assert np.array_equal(batch.labels.numpy(), draws.label)
    for i, c in ((0, 0), (3, 2)):
        video, (top, left) = data.clips.frames(i), draws.crop[i, c]
        part = video[draws.start[i, c] :][:FRAMES, top : top + SIDE, left : left + SIDE]
        # The draws alone; test_transforms.py compares them with torchvision.
        own = {f.name: getattr(draws.colour, f.name) for f in fields(draws.colour)}
        alone = replace(draws.colour, **{n: a[i : i + 1, c : c + 1] for n, a in own.items() if n != "blur_radius"})
        plain = augment(torch.from_numpy(part[None, None]), alone)[0, 0].numpy()
        np.testing.assert_allclose(batch.clips[i, c].numpy(), np.roll(plain, 1, 1) - plain, atol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
def test_actions_are_learned_from_single_clips_with_their_labels(data: TrialData, normalize: bool) -> None:
    config = TrialConfig.model_validate(
        {**FORM, "clip": {**FORM["clip"], "normalize": normalize}, "loss": {"target": "action"}}
    )
    rows = np.array([2, 1])
    batch = evaluation_samples(config, data, rows, CPU)
    assert batch.labels.tolist() == [1, 2]
    assert batch.clips.shape == (2, 1, 3, FRAMES, SIDE, SIDE)
    named = {"seed": 0, "purpose": "evaluate", "epoch": 0, "samples": rows, "lengths": data.lengths[rows]}
    start = draw_clips(config, **named, train=False).start
    for i, row in enumerate(rows.tolist()):
        plain = normal(data.clips.frames(row)[start[i, 0] :][:FRAMES])
        if not normalize:
            plain = plain * STD[:, None, None, None] + MEAN[:, None, None, None]
        np.testing.assert_allclose(batch.clips[i, 0].numpy(), np.roll(plain, 1, 1) - plain, atol=1e-5)
    # In training, sample 1 of this order is row 2.
    trained = training_samples(config, data, 1, np.array([1]), CPU)
    assert trained.labels.tolist() == [1]
    assert trained.clips.shape == (1, 1, 3, FRAMES, SIDE, SIDE)


@pytest.mark.parametrize("variant", [{}, {"augment": {"per": "frame"}}, {"loss": {"target": "action"}}])
def test_a_training_sample_is_the_same_in_any_batch_and_at_any_fraction(data: TrialData, variant: dict) -> None:
    config = TrialConfig.model_validate({**FORM, **variant})
    part = TrialConfig.model_validate({**FORM, **variant, "data": {"fraction": 0.5}})
    whole = training_samples(config, data, 3, np.arange(4), CPU)
    few = training_samples(part, replace(data, size=2), 3, np.array([1, 0]), CPU)
    assert torch.equal(few.clips, whole.clips[[1, 0]])
    assert torch.equal(few.labels, whole.labels[[1, 0]])
    assert not torch.equal(training_samples(config, data, 4, np.arange(4), CPU).clips, whole.clips)
