"""Augmentation against torchvision, one frame at a time."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as V

from kdtune.clips.appearance import ColourDraws
from kdtune.clips.augment import augment
from kdtune.clips.tuples import draw_clips, draw_tuples
from kdtune.config.trial import TrialConfig

torch.set_num_threads(1)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # ImageNet
SIDE, FRAMES = 24, 8
FORM = {"clip": {"frames": FRAMES, "size": SIDE, "interval": 2, "resize": [28, 37]}}
CONFIG = TrialConfig.model_validate(FORM)
FRAMEWISE = TrialConfig.model_validate({**FORM, "augment": {"per": "frame"}})


def drawn(count: int, config: TrialConfig = CONFIG, n: int = 3) -> ColourDraws:
    named = {"seed": 0, "purpose": "test", "epoch": 1, "samples": np.arange(count), "lengths": np.full(count, 99)}
    colour = (draw_tuples if n == 3 else draw_clips)(config, **named, train=True).colour
    assert colour is not None
    return colour


def reference(clip: np.ndarray, colour: ColourDraws, i: int, c: int, normalize: bool = True) -> np.ndarray:
    """Pass one clip (T, H, W, 3) frame by frame through torchvision's transforms, in PCL's order."""
    out = []
    for t, frame in enumerate(torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255):
        at = (i, c, t)[: colour.flip.ndim]
        if colour.jitter[at]:
            for operation in colour.order[at]:
                change = (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation, V.adjust_hue)[operation]
                factors = (colour.brightness, colour.contrast, colour.saturation, colour.hue)[operation]
                frame = change(frame, float(factors[at]))
        if colour.grey[at]:
            frame = V.rgb_to_grayscale(frame, num_output_channels=3)
        if colour.blur[at]:
            taps = 2 * colour.blur_radius + 1
            frame = V.gaussian_blur(frame, [taps, taps], [float(colour.sigma[at])] * 2)
        if colour.flip[at]:
            frame = V.horizontal_flip(frame)
        out.append(V.normalize(frame, MEAN.tolist(), STD.tolist()) if normalize else frame)
    return torch.stack(out, 1).numpy()


def pictures(count: int, kind: str, n: int = 3, frames: int = 4) -> np.ndarray:
    """Return uint8 (count, n, T, S, S, 3): noise, or flat grey, black, white, whose hue and saturation degenerate."""
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (count, n, frames, SIDE, SIDE, 3), dtype=np.uint8)
    return noise if kind == "noise" else np.repeat(noise[..., :1] // 128 * 255, 3, -1)


@pytest.mark.parametrize("kind", ["noise", "black and white"])
def test_augmentation_is_torchvisions_applied_to_each_frame(kind: str) -> None:
    count = 12
    colour = drawn(count)
    for name in ("jitter", "grey", "blur", "flip"):
        assert 0 < getattr(colour, name).sum() < 3 * count  # or the comparison would miss a branch
    clips = pictures(count, kind)
    out = augment(torch.from_numpy(clips), colour).numpy()
    assert out.shape == (count, 3, 3, 4, SIDE, SIDE)
    for i in range(count):
        for c in range(3):
            np.testing.assert_allclose(out[i, c], reference(clips[i, c], colour, i, c), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["noise", "black and white"])
def test_frames_may_be_augmented_each_with_its_own_draws(kind: str) -> None:
    colour = drawn(4, FRAMEWISE)
    clips = pictures(4, kind, frames=FRAMES)
    out = augment(torch.from_numpy(clips), colour).numpy()
    assert out.shape == (4, 3, 3, FRAMES, SIDE, SIDE)
    for i, c in np.ndindex(4, 3):
        np.testing.assert_allclose(out[i, c], reference(clips[i, c], colour, i, c), atol=1e-5, rtol=0)


def test_frames_with_the_draws_of_their_clip_look_like_the_clip() -> None:
    colour = drawn(6)
    arrays = {f.name: getattr(colour, f.name) for f in fields(colour) if f.name != "blur_radius"}
    repeated = replace(colour, **{name: np.repeat(a[:, :, None], 4, 2) for name, a in arrays.items()})
    clips = torch.from_numpy(pictures(6, "noise"))
    one, other = augment(clips, repeated), augment(clips, colour)
    np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-5, rtol=0)


def test_single_clips_are_augmented_as_those_of_a_tuple() -> None:
    colour = drawn(12, n=1)
    clips = pictures(12, "noise", n=1)
    out = augment(torch.from_numpy(clips), colour).numpy()
    assert out.shape == (12, 1, 3, 4, SIDE, SIDE)
    for i in range(12):
        np.testing.assert_allclose(out[i, 0], reference(clips[i, 0], colour, i, 0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [CONFIG, FRAMEWISE])
def test_without_normalisation_frames_stay_between_0_and_1(config: TrialConfig) -> None:
    colour = drawn(4, config)
    clips = pictures(4, "noise", frames=FRAMES)
    out = augment(torch.from_numpy(clips), colour, normalize=False).numpy()
    assert out.min() >= 0
    assert out.max() <= 1 + 1e-6
    for i, c in np.ndindex(4, 3):
        np.testing.assert_allclose(out[i, c], reference(clips[i, c], colour, i, c, False), atol=3e-6, rtol=0)
    plain = augment(torch.from_numpy(clips), None, normalize=False).numpy()
    np.testing.assert_allclose(plain, clips.transpose(0, 1, 5, 2, 3, 4) / 255, atol=1e-7, rtol=0)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_is_torchvisions_with_the_same_kernel_and_wide_enough(sigma: float) -> None:
    colour = drawn(1)
    off = np.zeros((1, 3), bool)
    blur = replace(colour, jitter=off, grey=off, flip=off, blur=~off, sigma=np.full((1, 3), sigma))
    clips = pictures(1, "noise")
    sharp = torch.from_numpy(clips[0, 0]).permute(0, 3, 1, 2).float() / 255
    out = augment(torch.from_numpy(clips), blur)[0, 0].permute(1, 2, 3, 0).numpy() * STD + MEAN
    for taps, tolerance in ((2 * colour.blur_radius + 1, 2e-6), (33, 3e-3)):
        expected = V.gaussian_blur(sharp, [taps, taps], [sigma, sigma]).permute(0, 2, 3, 1)
        np.testing.assert_allclose(out, expected.numpy(), atol=tolerance, rtol=0)


@pytest.mark.parametrize("config", [CONFIG, FRAMEWISE])
def test_a_clip_looks_the_same_in_any_batch(config: TrialConfig) -> None:
    colour = drawn(6, config)
    clips = torch.from_numpy(pictures(6, "noise", frames=FRAMES))
    together = augment(clips, colour)
    for part in ([3], [5, 0], [2, 4, 1]):
        arrays = {f.name: getattr(colour, f.name)[part] for f in fields(colour) if f.name != "blur_radius"}
        assert torch.equal(augment(clips[part], replace(colour, **arrays)), together[part])
