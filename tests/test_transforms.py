"""Pretext transforms, residuals and augmentation against index arithmetic and torchvision, one clip at a time."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from helpers import FakeClips
from torchvision.transforms.v2 import functional as V

from kdtune.clips.augment import augment, residual
from kdtune.clips.dataset import TrialData
from kdtune.clips.pretext import transform_middle
from kdtune.clips.tuples import ColourDraws, TupleDraws, draw_tuples
from kdtune.config.trial import TrialConfig
from kdtune.train.inputs import evaluation_tuples, evenly_spaced_clips, training_tuples

torch.set_num_threads(1)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # ImageNet
SIDE, FRAMES = 24, 8
CONFIG = TrialConfig.model_validate({"clip": {"frames": FRAMES, "size": SIDE, "interval": 2, "resize": [28, 37]}})


def drawn(labels: list[int], seed: int = 0, config: TrialConfig = CONFIG) -> TupleDraws:
    count = len(labels)
    named = {"seed": seed, "purpose": "test", "epoch": 1, "samples": np.arange(count), "lengths": np.full(count, 99)}
    return replace(draw_tuples(config, **named, train=True), label=np.array(labels))


# ---- pretext ---------------------------------------------------------------------------------------------------------


def rotated(clip: np.ndarray, turns: int) -> np.ndarray:
    """Counter-clockwise quarter turns of (C, T, S, S): what stands at (y, x) comes from (x, S−1−y)."""
    for _ in range(turns):
        y, x = np.mgrid[: clip.shape[-2], : clip.shape[-1]]
        clip = clip[:, :, x, clip.shape[-1] - 1 - y]
    return clip


def quartered(clip: np.ndarray, order: list[int]) -> np.ndarray:
    half = clip.shape[-1] // 2
    out = np.empty_like(clip)
    for y in range(2 * half):
        for x in range(2 * half):
            source = order[2 * (y // half) + x // half]
            out[..., y, x] = clip[..., source // 2 * half + y % half, source % 2 * half + x % half]
    return out


def chunked(clip: np.ndarray, order: list[int]) -> np.ndarray:
    length = -(-clip.shape[1] // 4)
    frames = [list(range(clip.shape[1]))[length * k : length * (k + 1)] for k in range(4)]
    return clip[:, [frame for k in order for frame in frames[k]]]


@pytest.mark.parametrize("frames", [4, 8, 10, 16])
@pytest.mark.parametrize("variant", [{}, {"spatial": "random", "temporal": "adjacent"}])
def test_only_the_middle_clip_is_transformed_as_its_label_says(frames: int, variant: dict) -> None:
    config = CONFIG.model_copy(update={"pretext": CONFIG.pretext.model_copy(update=variant)})
    labels = [0, 1, 2, 3, 4] * 12
    draws = drawn(labels, config=config)
    assert set(draws.quarter_turns[1::5]) == {1, 2, 3}
    clips = np.random.default_rng(0).normal(size=(len(labels), 3, 3, frames, 6, 6)).astype(np.float32)
    given = torch.from_numpy(clips.copy())
    out = transform_middle(given, draws).numpy()
    assert np.array_equal(given.numpy(), clips)
    assert np.array_equal(out[:, [0, 2]], clips[:, [0, 2]])
    for i, label in enumerate(labels):
        middle = clips[i, 1]
        expected = {
            1: rotated(middle, int(draws.quarter_turns[i])),
            2: quartered(middle, draws.quadrants[i].tolist()),
            3: chunked(middle, draws.chunks[i].tolist()),
        }.get(label, middle)
        assert np.array_equal(out[i, 1], expected)
        assert (label in (0, 4)) == np.array_equal(out[i, 1], middle)


def test_ten_frames_are_cut_into_3_3_3_1() -> None:
    clip = np.arange(10, dtype=np.float32).reshape(1, 1, 1, 10, 1, 1)
    draws = replace(drawn([3]), chunks=np.array([[3, 1, 2, 0]]))
    out = transform_middle(torch.from_numpy(np.repeat(clip, 3, 1)), draws)
    assert out[0, 1].flatten().tolist() == [9, 3, 4, 5, 6, 7, 8, 0, 1, 2]


def test_a_residual_is_the_frame_before_less_the_frame() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 5, 4, 4)).astype(np.float32)
    out = residual(torch.from_numpy(x)).numpy()
    for t in range(5):
        assert np.array_equal(out[:, :, :, t], x[:, :, :, (t - 1) % 5] - x[:, :, :, t])


# ---- augmentation ----------------------------------------------------------------------------------------------------


def reference(clip: np.ndarray, colour: ColourDraws, i: int, c: int) -> np.ndarray:
    """One clip (T, H, W, 3) frame by frame through torchvision, as PCL's list of transforms says."""
    out = []
    for frame in torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255:
        if colour.jitter[i, c]:
            for operation in colour.order[i, c]:
                change = (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation, V.adjust_hue)[operation]
                factors = (colour.brightness, colour.contrast, colour.saturation, colour.hue)[operation]
                frame = change(frame, float(factors[i, c]))
        if colour.grey[i, c]:
            frame = V.rgb_to_grayscale(frame, num_output_channels=3)
        if colour.blur[i, c]:
            taps = 2 * colour.blur_radius + 1
            frame = V.gaussian_blur(frame, [taps, taps], [float(colour.sigma[i, c])] * 2)
        if colour.flip[i, c]:
            frame = V.horizontal_flip(frame)
        out.append(V.normalize(frame, MEAN.tolist(), STD.tolist()))
    return torch.stack(out, 1).numpy()


def pictures(count: int, kind: str) -> np.ndarray:
    """uint8 (count, 3, T, S, S, 3): noise, or flat grey, black and white, where hue and saturation are degenerate."""
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (count, 3, 4, SIDE, SIDE, 3), dtype=np.uint8)
    return noise if kind == "noise" else np.repeat(noise[..., :1] // 128 * 255, 3, -1)


@pytest.mark.parametrize("kind", ["noise", "black and white"])
def test_augmentation_is_torchvisions_applied_to_each_frame(kind: str) -> None:
    count = 12
    colour = drawn([0] * count).colour
    assert colour is not None
    for name in ("jitter", "grey", "blur", "flip"):
        assert 0 < getattr(colour, name).sum() < 3 * count  # or the comparison would leave a branch out
    clips = pictures(count, kind)
    out = augment(torch.from_numpy(clips), colour).numpy()
    assert out.shape == (count, 3, 3, 4, SIDE, SIDE)
    for i in range(count):
        for c in range(3):
            np.testing.assert_allclose(out[i, c], reference(clips[i, c], colour, i, c), atol=1e-5, rtol=0)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_is_torchvisions_with_the_same_kernel_and_wide_enough(sigma: float) -> None:
    colour = drawn([0]).colour
    assert colour is not None
    off = np.zeros((1, 3), bool)
    blur = replace(colour, jitter=off, grey=off, flip=off, blur=~off, sigma=np.full((1, 3), sigma))
    clips = pictures(1, "noise")
    sharp = torch.from_numpy(clips[0, 0]).permute(0, 3, 1, 2).float() / 255
    out = augment(torch.from_numpy(clips), blur)[0, 0].permute(1, 2, 3, 0).numpy() * STD + MEAN
    for taps, tolerance in ((2 * colour.blur_radius + 1, 2e-6), (33, 3e-3)):
        expected = V.gaussian_blur(sharp, [taps, taps], [sigma, sigma]).permute(0, 2, 3, 1)
        np.testing.assert_allclose(out, expected.numpy(), atol=tolerance, rtol=0)


def test_a_clip_looks_the_same_in_any_batch() -> None:
    colour = drawn([0] * 6).colour
    assert colour is not None
    clips = torch.from_numpy(pictures(6, "noise"))
    together = augment(clips, colour)
    for part in ([3], [5, 0], [2, 4, 1]):
        arrays = {f.name: getattr(colour, f.name)[part] for f in fields(colour) if f.name != "blur_radius"}
        assert torch.equal(augment(clips[part], replace(colour, **arrays)), together[part])


# ---- from videos to batches ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> TrialData:
    lengths = [60, 70, 80, 90]
    clips = FakeClips(lengths, 28, 37)
    rows, labels = np.arange(4), np.zeros(4, int)
    return TrialData(clips, rows[::-1].copy(), 4, rows, rows, np.array(lengths), labels)


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
    out = evenly_spaced_clips(config, data, np.array([2, 0]), torch.device("cpu"))
    assert out.shape == (2, 3, 3, FRAMES, SIDE, SIDE)
    for i, row in enumerate((2, 0)):
        length = data.lengths[row]
        for c, start in enumerate((0, (length - FRAMES) // 2, length - FRAMES)):
            expected = normal(data.clips.frames(row)[start : start + FRAMES])
            if modality == "residual":
                expected = np.roll(expected, 1, 1) - expected
            np.testing.assert_allclose(out[i, c].numpy(), expected, atol=1e-5)


def test_evaluation_tuples_are_the_same_questions_for_every_trial(data: TrialData) -> None:
    rows = np.arange(4)
    batch = evaluation_tuples(CONFIG, data, rows, torch.device("cpu"))
    draws = draw_tuples(CONFIG, seed=0, purpose="evaluate", epoch=0, samples=rows, lengths=data.lengths, train=False)
    for i in range(4):
        for c in (0, 2):
            first = draws.start[i, c]
            plain = normal(data.clips.frames(i)[first : first + FRAMES])
            np.testing.assert_allclose(batch.clips[i, c].numpy(), np.roll(plain, 1, 1) - plain, atol=1e-5)
    other = CONFIG.model_copy(update={"seed": 5, "augment": CONFIG.augment.model_copy(update={"flip_p": 1.0})})
    again = evaluation_tuples(other, data, rows[::-1].copy(), torch.device("cpu"))
    assert torch.equal(again.clips.flip(0), batch.clips)
    assert torch.equal(again.labels.flip(0), batch.labels)


def test_a_training_sample_is_the_same_in_any_batch_and_at_any_fraction(data: TrialData) -> None:
    cpu = torch.device("cpu")
    whole = training_tuples(CONFIG, data, 3, np.arange(4), cpu)
    part = CONFIG.model_copy(update={"data": CONFIG.data.model_copy(update={"fraction": 0.5})})
    few = training_tuples(part, replace(data, size=2), 3, np.array([1, 0]), cpu)
    assert torch.equal(few.clips, whole.clips[[1, 0]])
    assert torch.equal(few.labels, whole.labels[[1, 0]])
    assert not torch.equal(training_tuples(CONFIG, data, 4, np.arange(4), cpu).clips, whole.clips)
