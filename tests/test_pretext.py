"""Pretext transforms and residuals against index arithmetic."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest
import torch

from kdtune.clips.augment import residual
from kdtune.clips.pretext import QUESTIONS, each_middle, transform_middle
from kdtune.clips.tuples import TupleDraws, draw_each_label, draw_tuples
from kdtune.config.trial import TrialConfig

torch.set_num_threads(1)


def drawn(labels: list[int], **variant: str) -> TupleDraws:
    config, count = TrialConfig.model_validate({"pretext": variant}), len(labels)
    named = {"seed": 0, "purpose": "test", "epoch": 1, "samples": np.arange(count), "lengths": np.full(count, 99)}
    return replace(draw_tuples(config, **named, train=True), label=np.array(labels))


def rotated(clip: np.ndarray, turns: int) -> np.ndarray:
    """Turn (C, T, S, S) counter-clockwise by quarter turns: position (y, x) gets the value of (x, S−1−y)."""
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


@pytest.mark.parametrize("frames", [4, 7, 8, 10, 11, 16])
@pytest.mark.parametrize("variant", [{}, {"spatial": "random", "temporal": "adjacent"}])
def test_only_the_middle_clip_is_transformed_as_its_label_says(frames: int, variant: dict) -> None:
    labels = [0, 1, 2, 3, 4] * 12
    draws = drawn(labels, **variant)
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


def test_each_question_is_the_tuple_that_training_would_show_for_its_label() -> None:
    count = 6
    named = {"seed": 0, "purpose": "test", "epoch": 1, "samples": np.arange(count), "lengths": np.full(count, 150)}
    draws = draw_each_label(TrialConfig(), **named, train=False)
    first, middle, remote, last = clips = torch.randn(4, count, 3, 8, 6, 6)
    given = torch.stack(tuple(clips), dim=1)
    asked = each_middle(given, draws)[:, torch.tensor(QUESTIONS)]
    assert asked.shape == (count, 5, 3, 3, 8, 6, 6)
    for label in range(5):
        tuples = torch.stack((first, remote if label == 4 else middle, last), dim=1)
        own = {
            name: getattr(draws, name) for name in ("start", "crop", "colour", "quarter_turns", "quadrants", "chunks")
        }
        one = TupleDraws(**own, label=np.full(count, label))
        assert asked[:, label].equal(transform_middle(tuples, one))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_each_rotation_pixel_by_pixel(turns: int) -> None:
    side = 6
    clips = torch.arange(3 * 2 * 4 * side * side).float().reshape(1, 3, 2, 4, side, side)
    out = transform_middle(clips, replace(drawn([1]), quarter_turns=np.array([turns])))
    last = side - 1
    for y, x in np.ndindex(side, side):
        # Counter-clockwise by 90, 180 and 270 degrees.
        source = {1: (x, last - y), 2: (last - y, last - x), 3: (last - x, y)}[turns]
        assert torch.equal(out[0, 1, :, :, y, x], clips[0, 1, :, :, source[0], source[1]])


def test_the_fixed_quadrants_change_places_across_the_middle() -> None:
    side = 6
    clips = torch.arange(3 * 2 * 4 * side * side).float().reshape(1, 3, 2, 4, side, side)
    out = transform_middle(clips, drawn([2]))
    for y, x in np.ndindex(side, side):
        assert torch.equal(out[0, 1, :, :, y, x], clips[0, 1, :, :, (y + 3) % side, (x + 3) % side])


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_any_order_of_quadrants(order: tuple[int, ...]) -> None:
    # One pixel per quadrant: A B over C D are 0 1 over 2 3.
    clips = torch.arange(4.0).reshape(1, 1, 1, 1, 2, 2).expand(1, 3, 1, 1, 2, 2)
    out = transform_middle(clips, replace(drawn([2]), quadrants=np.array([order])))
    assert out[0, 1].flatten().tolist() == list(order)


@pytest.mark.parametrize(
    ("frames", "lengths"),
    [(4, "1111"), (7, "2221"), (8, "2222"), (10, "3331"), (11, "3332"), (13, "4441"), (15, "4443"), (16, "4444")],
)
def test_frames_are_cut_into_four_chunks_of_a_quarter_rounded_up(frames: int, lengths: str) -> None:
    clip = torch.arange(float(frames)).reshape(1, 1, 1, frames, 1, 1).expand(1, 3, 1, frames, 1, 1)
    ends = np.cumsum([int(length) for length in lengths])
    chunks = [list(range(end - int(length), end)) for end, length in zip(ends, lengths, strict=True)]
    for first, second in combinations(range(4), 2):
        order = [0, 1, 2, 3]
        order[first], order[second] = second, first
        out = transform_middle(clip, replace(drawn([3]), chunks=np.array([order])))
        assert out[0, 1].flatten().tolist() == [frame for k in order for frame in chunks[k]]


def test_a_residual_is_the_frame_before_less_the_frame() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 5, 4, 4)).astype(np.float32)
    out = residual(torch.from_numpy(x)).numpy()
    for t in range(5):
        assert np.array_equal(out[:, :, :, t], x[:, :, :, (t - 1) % 5] - x[:, :, :, t])
