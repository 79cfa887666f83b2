"""Draws of clips' appearance: crops and colours per clip, or per frame as a newer torchvision draws them."""

from __future__ import annotations

import random
from dataclasses import fields
from itertools import permutations

import numpy as np
import pytest
import torch
from helpers import FakeClips, chi_square
from PIL import Image
from torchvision import transforms

from kdtune.clips.tuples import ClipDraws, draw_clips, draw_tuples, read_clips
from kdtune.config.trial import TrialConfig

MANY, T = 800, 10


def draw(count: int, n: int = 3, per: str = "clip", train: bool = True) -> ClipDraws:
    """Draw `count` samples of n clips at KD's sizes."""
    config = TrialConfig.model_validate({"augment": {"per": per}})
    named = {"seed": 1, "purpose": "test", "epoch": 2, "samples": np.arange(count), "lengths": np.full(count, 100)}
    return (draw_tuples if n == 3 else draw_clips)(config, **named, train=train)


def test_crops_go_to_every_edge_and_are_centred_for_an_evaluation() -> None:
    crops = draw(MANY).crop
    assert crops.reshape(-1, 2).min(0).tolist() == [0, 0]
    assert crops.reshape(-1, 2).max(0).tolist() == [128 - 112, 171 - 112]
    # One draw per clip: the three clips of a tuple are cropped independently.
    assert (crops[:, 0] != crops[:, 1]).any(1).mean() > 0.9
    for plain in (draw(20, n, per, train=False) for n in (3, 1) for per in ("clip", "frame")):
        assert plain.crop.shape == (20, plain.start.shape[1], 2)
        assert np.abs(2 * plain.crop - [128 - 112, 171 - 112]).max() <= 1
        assert plain.colour is None


@pytest.mark.parametrize("drawn", ["tuples", "single clips", "frames"])
def test_colour_is_drawn_as_simclr_says(drawn: str) -> None:
    count, n, per = {"tuples": (MANY, 3, "clip"), "single clips": (3 * MANY, 1, "clip"), "frames": (240, 3, "frame")}[
        drawn
    ]
    colour = draw(count, n, per).colour
    assert colour is not None
    looks = colour.flip.size
    assert looks == count * n * (T if per == "frame" else 1)
    for name, p in {"jitter": 0.8, "grey": 0.2, "blur": 0.5, "flip": 0.5}.items():
        assert abs(getattr(colour, name).mean() - p) < 3.3 * (p * (1 - p) / looks) ** 0.5
    ranges = {"brightness": (0.6, 1.4), "contrast": (0.6, 1.4), "saturation": (0.6, 1.4), "hue": (-0.1, 0.1)}
    for name, (low, high) in {**ranges, "sigma": (0.1, 2.0)}.items():
        values = getattr(colour, name)
        if drawn == "frames" and name == "sigma":
            values = values[:, :, 0]  # one draw per clip, as the test below shows
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high >= values.max() > high - 0.01 * (high - low)
        counts = np.histogram(values, 10, (low, high))[0]
        assert chi_square(counts, np.full(10, values.size / 10)) < 3.1
    orders = [tuple(order) for order in colour.order.reshape(-1, 4)]
    counts = np.array([orders.count(order) for order in permutations(range(4))])
    assert counts.sum() == looks
    assert chi_square(counts, np.full(24, looks / 24)) < 2.2


# ---- augment.per: frame ----------------------------------------------------------------------------------------------


def test_frames_of_a_clip_are_drawn_apart_and_share_only_their_sigma() -> None:
    draws = draw(200, per="frame")
    colour = draws.colour
    assert colour is not None
    assert draws.crop.shape == (200, 3, T, 2)
    assert (colour.sigma == colour.sigma[:, :, :1]).all()
    assert len(np.unique(colour.sigma)) == 3 * 200
    of_frames = {f.name: getattr(colour, f.name) for f in fields(colour) if f.name not in ("sigma", "blur_radius")}
    of_frames |= {"top": draws.crop[..., 0], "left": draws.crop[..., 1], "first operation": colour.order[..., 0]}
    del of_frames["order"]
    for name, values in of_frames.items():
        assert values.shape == (200, 3, T), name
        # No frame predicts the next one, or the same one of the next clip: |r| < 4/√n.
        for one, other in ((values[..., :-1], values[..., 1:]), (values[:, :-1], values[:, 1:])):
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / one.size**0.5, name


@pytest.mark.parametrize("n", [3, 1])
def test_drawing_for_each_frame_leaves_the_rest_as_it_is(n: int) -> None:
    by_clip, by_frame = draw(50, n), draw(50, n, "frame")
    for f in fields(by_clip):
        if f.name not in ("crop", "colour"):
            assert np.array_equal(getattr(by_clip, f.name), getattr(by_frame, f.name)), f.name
    assert by_clip.colour is not None
    assert by_frame.colour is not None
    assert np.array_equal(by_clip.colour.sigma, by_frame.colour.sigma[:, :, 0])
    assert by_clip.colour.blur_radius == by_frame.colour.blur_radius


def test_torchvision_draws_pcls_transforms_for_each_frame_and_only_sigma_for_the_clip() -> None:
    """What `per: frame` reproduces, shown on PCL's code: it seeds Python's generator before each frame of a clip."""
    sigmas: list[float] = []

    def blur(image: Image.Image) -> Image.Image:
        sigmas.append(random.uniform(0.1, 2.0))  # PCL's GaussianBlur
        return image

    frame = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8))
    operations = {
        "crop": transforms.RandomCrop(6),
        "jitter": transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        "grey": transforms.RandomGrayscale(p=0.2),
        "blur": transforms.RandomApply([blur], p=0.5),
        "flip": transforms.RandomHorizontalFlip(),
    }
    state = random.getstate()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, operation in operations.items():
            frames = set()
            for _ in range(40):
                random.seed(0.5)
                before = len(sigmas)
                frames.add((operation(frame).tobytes(), len(sigmas) - before))
            assert len(frames) > 1, name
    random.setstate(state)
    assert len(set(sigmas)) == 1


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_clips_are_cut_out_of_the_frames() -> None:
    videos = FakeClips([20, 31, 25], 20, 27)
    config = TrialConfig.model_validate({"clip": {"frames": 8, "size": 16, "resize": [20, 27]}}).clip
    rows, starts = np.array([2, 0]), np.array([[0, 11, 17], [12, 3, 1]])
    crops = np.array([[[0, 0], [4, 11], [2, 3]], [[1, 9], [3, 0], [0, 11]]])
    out = read_clips(videos, rows, starts, crops, config)
    assert out.shape == (2, 3, 8, 16, 16, 3)
    assert out.dtype == np.uint8
    for i, row in enumerate(rows):
        for c in range(3):
            top, left = crops[i, c]
            for t, y in np.ndindex(8, 16):
                expected = videos.videos[row][starts[i, c] + t, top + y, left : left + 16]
                assert np.array_equal(out[i, c, t, y], expected)


def test_each_frame_may_be_cut_out_elsewhere() -> None:
    videos = FakeClips([20], 20, 27)
    config = TrialConfig.model_validate({"clip": {"frames": 8, "size": 16, "resize": [20, 27]}}).clip
    crops = np.stack(np.divmod(np.arange(8) * 7 % 60, 12), -1).reshape(1, 1, 8, 2)  # tops 0 … 4, lefts 0 … 11
    out = read_clips(videos, np.array([0]), np.array([[5]]), crops, config)
    for t, (top, left) in enumerate(crops[0, 0].tolist()):
        for y, x in np.ndindex(16, 16):
            assert np.array_equal(out[0, 0, t, y, x], videos.videos[0][5 + t, top + y, left + x])
