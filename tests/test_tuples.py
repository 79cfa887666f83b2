"""Samples (REFERENCE.md): positions of clips, draws of labels; a sample's draws are its own (DESIGN 4.1)."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import fields
from itertools import combinations, permutations

import numpy as np
import pytest
from helpers import chi_square

from kdtune.clips.tuples import ClipDraws, TupleDraws, draw_clips, draw_each_label, draw_tuples
from kdtune.config.trial import TrialConfig

NONE, ROTATION, SPATIAL, TEMPORAL, REMOTE = range(5)
T, SPAN, DISTANCE = 10, 46, 16  # KD's clips, PCL's tuple_total_frames and remote distance
MANY = 800


def draw(lengths: int | np.ndarray, count: int = MANY, train: bool = False, **raw: dict) -> TupleDraws:
    samples = np.arange(count)
    config = TrialConfig.model_validate(raw)
    lengths = np.broadcast_to(lengths, (count,))
    return draw_tuples(config, seed=1, purpose="test", epoch=2, samples=samples, lengths=lengths, train=train)


def flat(draws: ClipDraws) -> dict[str, np.ndarray | int]:
    assert draws.colour is not None
    own = {f.name: getattr(draws, f.name) for f in fields(draws) if f.name != "colour"}
    return own | {f"colour.{f.name}": getattr(draws.colour, f.name) for f in fields(draws.colour)}


# ---- where clips lie -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stride", "frames", "start_stride", "tuple_frames"),
    [("pcl", 10, 11, 46), ("vcop", 10, 18, 46), ("pcl", 16, 11, 64), ("vcop", 16, 24, 64)],
)
def test_tuple_geometry(stride: str, frames: int, start_stride: int, tuple_frames: int) -> None:
    clip = {"stride": stride, "frames": frames}
    config = TrialConfig.model_validate({"clip": clip}).clip
    assert (config.start_stride, config.tuple_frames) == (start_stride, tuple_frames)
    length = tuple_frames + 9
    draws = draw(length, clip=clip)
    first, middle, last = draws.start.T
    assert (last - first == 2 * start_stride).all()
    plain = draws.label != REMOTE
    assert (middle - first == start_stride)[plain].all()
    # The tuple starts anywhere where all of tuple_frames fits, uniformly.
    counts = np.bincount(first)
    assert len(counts) == 10
    assert chi_square(counts, np.full(10, MANY / 10)) < 3.1  # 99.9 % point of χ²/9


def test_a_video_of_just_the_tuples_length_has_one_place() -> None:
    assert (draw(SPAN, 200).start == [0, 11, 22]).all()


@pytest.mark.parametrize(("frames", "length"), [(10, 10), (10, 19), (16, 40)])
def test_a_single_clip_starts_anywhere_where_all_of_it_fits(frames: int, length: int) -> None:
    config = TrialConfig.model_validate({"clip": {"frames": frames}, "loss": {"target": "action"}})
    named = {"seed": 1, "purpose": "test", "epoch": 2, "samples": np.arange(MANY), "lengths": np.full(MANY, length)}
    draws = draw_clips(config, **named, train=False)
    assert draws.start.shape == (MANY, 1)
    assert not isinstance(draws, TupleDraws)
    places = length - frames + 1
    counts = np.bincount(draws.start.ravel())
    assert len(counts) == places
    assert chi_square(counts, np.full(places, MANY / places)) < 3.1


# ---- labels ----------------------------------------------------------------------------------------------------------


def prior(length: int, rule: str) -> np.ndarray:
    """Compute the exact label probabilities of PCL's load4clips for a video of `length` frames, over all starts."""
    starts = range(length - SPAN + 1)
    forward = [start - T - DISTANCE >= 0 for start in starts]
    backward = [length - start - SPAN - T - DISTANCE >= 0 for start in starts]
    combine = all if rule == "both" else any
    room = np.mean([combine(pair) for pair in zip(forward, backward, strict=True)])
    # One in five is to be remote; without room the label is redrawn from the other four.
    return np.array([*[0.2 + 0.2 * (1 - room) / 4] * 4, 0.2 * room])


@pytest.mark.parametrize("rule", ["both", "either"])
@pytest.mark.parametrize("length", [46, 71, 72, 98, 120, 400])
def test_label_prior_is_pcls(length: int, rule: str) -> None:
    count = 3000  # enough to tell a second draw from three labels from one from four
    expected = count * prior(length, rule)
    counts = np.bincount(draw(length, count, pretext={"remote": rule}).label, minlength=5)
    possible = expected > 0
    assert (counts[~possible] == 0).all()
    assert chi_square(counts[possible], expected[possible]) < 5.4  # 99.9 % point of χ²/3


def load4clips(generator: random.Random, length: int, rule: str) -> tuple[int, int, int]:
    """Return (label, start of the tuple, start of clip 1) by PCL's __getitem__ and load4clips, line by line, at T = 10.

    `either` requires room on one side only; PCL's own branches for that are never reached in its code.
    """
    start = generator.randint(0, length - SPAN)
    label, middle = generator.randint(0, 4), start + (3 + 8)
    if label == 4:
        forward, backward = start - T - DISTANCE, length - start - SPAN - T - DISTANCE
        none = (forward < 0 or backward < 0) if rule == "both" else (forward < 0 and backward < 0)
        if none:
            label = generator.randint(0, 3)
        elif forward < 0:
            middle = generator.randint(start + SPAN + DISTANCE, length - T)
        elif backward < 0:
            middle = generator.randint(0, start - T - DISTANCE)
        else:
            before = generator.randint(0, start - T - DISTANCE)
            after = generator.randint(start + SPAN + DISTANCE, length - T)
            middle = (before, after)[generator.randint(0, 1)]
    return label, start, middle


@pytest.mark.parametrize("rule", ["both", "either"])
def test_tuples_are_distributed_as_by_pcls_own_code(rule: str) -> None:
    # From videos that just fit a tuple, to videos with room for a remote clip on one side, to room on both.
    lengths, rounds = np.tile([46, 60, 71, 72, 85, 97, 98, 110, 150, 240], 400), 25
    generator = random.Random(0)
    simulated = [load4clips(generator, length, rule) for _ in range(rounds) for length in lengths.tolist()]
    draws = draw(lengths, len(lengths), pretext={"remote": rule})
    drawn = np.array([draws.label, draws.start[:, 0], draws.start[:, 1]])
    both = (drawn, np.array(simulated).T)
    # Cells of one label: 20 frames of starts and 40 of the distance from clip 0 to clip 1, which is remote or 11.
    cells = [np.ravel_multi_index((of[0], of[1] // 20, (of[2] - of[1] + 200) // 40), (5, 10, 11)) for of in both]
    counts, expected = np.bincount(cells[0], minlength=550), np.bincount(cells[1], minlength=550) / rounds
    assert (counts[expected == 0] == 0).all()
    usual = expected > 4
    assert usual.sum() > 40
    # χ²/n has mean 1 and variance 2/n; the simulation's own variance adds 1/rounds.
    assert chi_square(counts[usual], expected[usual]) < (1 + 1 / rounds) * (1 + 3.3 * (2 / usual.sum()) ** 0.5)
    away = (drawn[2] - drawn[1])[drawn[0] == REMOTE]
    assert ((away <= -T - DISTANCE) | (away >= SPAN + DISTANCE)).all()


def test_about_one_in_ten_is_remote_at_ucf101s_lengths() -> None:
    lengths = np.tile(np.arange(100, 300), 10)  # REFERENCE.md: ≈ .225 × 4 and .10
    share = np.bincount(draw(lengths, len(lengths)).label, minlength=5) / len(lengths)
    assert share == pytest.approx([0.225] * 4 + [0.1], abs=0.03)


@pytest.mark.parametrize("rule", ["both", "either"])
@pytest.mark.parametrize("length", [72, 98, 150, 400])
def test_a_remote_clip_is_16_frames_away(length: int, rule: str) -> None:
    draws = draw(length, pretext={"remote": rule})
    remote = draws.label == REMOTE
    first, middle = draws.start[remote, 0], draws.start[remote, 1]
    assert (middle >= 0).all()
    assert (middle + T <= length).all()
    before = first - (middle + T) >= DISTANCE
    after = middle - (first + SPAN) >= DISTANCE
    assert (before ^ after).all()
    fits_before, fits_after = first - T - DISTANCE >= 0, length - first - SPAN - T - DISTANCE >= 0
    if rule == "both":
        assert (fits_before & fits_after).all()
    both = fits_before & fits_after
    assert before[fits_before & ~fits_after].all()
    assert after[fits_after & ~fits_before].all()
    if both.any():
        # Where both sides have room, they are equally likely.
        assert abs(before[both].mean() - 0.5) < 3.3 * 0.5 / both.sum() ** 0.5


def test_a_remote_clip_may_lie_anywhere_on_its_side() -> None:
    # One position for the tuple with room on both sides, and one position on each side for the remote clip.
    draws = draw(98)
    remote = draws.label == REMOTE
    assert set(draws.start[remote, 0]) == {26}
    assert set(draws.start[remote, 1]) == {0, 88}
    # In a longer video its distance from the tuple takes every possible value.
    draws = draw(74, count=2000, pretext={"remote": "either"})
    remote = draws.label == REMOTE
    first, middle = draws.start[remote, 0], draws.start[remote, 1]
    before = middle < first
    assert set((first - middle - T)[before]) == {16, 17, 18}
    assert set((middle - first - SPAN)[~before]) == {16, 17, 18}


# ---- a video under each label ----------------------------------------------------------------------------------------


def places(length: int, rule: str) -> set[tuple[int, int]]:
    """Return every (start of the tuple, start of the remote clip) with PCL's distance that the rule allows."""
    found = set()
    for first in range(length - SPAN + 1):
        before = set(range(first - T - DISTANCE + 1))
        after = set(range(first + SPAN + DISTANCE, length - T + 1))
        if (before and after) if rule == "both" else (before or after):
            found |= {(first, remote) for remote in before | after}
    return found


@pytest.mark.parametrize("rule", ["both", "either"])
@pytest.mark.parametrize("length", [46, 71, 74, 98, 120])
def test_the_five_questions_about_a_video_share_a_place_where_a_remote_clip_fits(length: int, rule: str) -> None:
    config = TrialConfig.model_validate({"pretext": {"remote": rule}})
    named = {"seed": 1, "purpose": "test", "epoch": 2, "samples": np.arange(MANY), "lengths": np.full(MANY, length)}
    draws = draw_each_label(config, **named, train=False)
    first, middle, remote, last = draws.start.T
    assert (draws.label == [NONE, ROTATION, SPATIAL, TEMPORAL, REMOTE]).all()
    assert (middle - first == 11).all()
    assert (last - first == 22).all()
    # Where no remote clip fits, tuple and remote clip are at opposite ends of the video.
    allowed = places(length, rule) or {(0, length - T), (length - SPAN, 0)}
    found = set(zip(first.tolist(), remote.tolist(), strict=True))
    assert found <= allowed
    assert {start for start, _ in found} == {start for start, _ in allowed}
    assert {remote.min(), remote.max()} == {0, length - T}
    one = draw_tuples(config, **named, train=False)
    for name in ("quarter_turns", "quadrants", "chunks"):
        assert np.array_equal(getattr(draws, name), getattr(one, name))


@pytest.mark.parametrize("per", ["clip", "frame"])
def test_all_middle_clips_of_a_video_look_alike(per: str) -> None:
    config = TrialConfig.model_validate({"augment": {"per": per}})
    named = {"seed": 1, "purpose": "test", "epoch": 2, "samples": np.arange(20), "lengths": np.full(20, 150)}
    four, three = (flat(draw(config, **named, train=True)) for draw in (draw_each_label, draw_tuples))
    for name in four:
        if name == "crop" or (name.startswith("colour.") and np.ndim(four[name])):
            assert np.array_equal(four[name][:, [0, 1, 3]], three[name]), name
            assert np.array_equal(four[name][:, 2], three[name][:, 1]), name


# ---- transforms ------------------------------------------------------------------------------------------------------


def test_which_transform_is_drawn_uniformly() -> None:
    draws = draw(100)
    assert chi_square(np.bincount(draws.quarter_turns, minlength=4)[1:], np.full(3, MANY / 3)) < 6.9
    assert (draws.quadrants == [3, 2, 1, 0]).all()
    swapped = (draws.chunks != np.arange(4)).sum(1)
    assert (swapped == 2).all()
    pairs = [tuple(np.flatnonzero(chunks != np.arange(4))) for chunks in draws.chunks]
    counts = np.array([pairs.count(pair) for pair in combinations(range(4), 2)])
    assert chi_square(counts, np.full(6, MANY / 6)) < 4.1


def test_kds_variants_of_the_transforms() -> None:
    draws = draw(100, pretext={"spatial": "random", "temporal": "adjacent"})
    orders = [tuple(order) for order in draws.quadrants]
    counts = np.array([orders.count(order) for order in permutations(range(4)) if order != (0, 1, 2, 3)])
    assert counts.sum() == MANY  # so the identity was never drawn
    assert chi_square(counts, np.full(23, MANY / 23)) < 2.2
    pairs = [tuple(np.flatnonzero(chunks != np.arange(4))) for chunks in draws.chunks]
    assert chi_square(np.array([pairs.count((i, i + 1)) for i in range(3)]), np.full(3, MANY / 3)) < 6.9
    assert set(pairs) == {(0, 1), (1, 2), (2, 3)}


# ---- a sample's draws are its own ------------------------------------------------------------------------------------


@pytest.mark.parametrize("per", ["clip", "frame"])
@pytest.mark.parametrize("draw_samples", [draw_tuples, draw_clips, draw_each_label])
def test_a_samples_draws_do_not_depend_on_its_batch_or_on_the_fraction(
    draw_samples: Callable[..., ClipDraws], per: str
) -> None:
    lengths = np.array([60, 100, 200, 150, 98, 400])

    def part(samples: list[int], fraction: float) -> dict:
        config = TrialConfig.model_validate({"data": {"fraction": fraction}, "augment": {"per": per}})
        at = np.array(samples)
        named = {"seed": 1, "purpose": "test", "epoch": 2}
        return flat(draw_samples(config, **named, samples=at, lengths=lengths[at], train=True))

    whole = part([0, 1, 2, 3, 4, 5], 1.0)
    for samples, fraction in (([4], 1.0), ([5, 0, 3], 1.0), ([2, 1], 0.02)):
        for name, values in part(samples, fraction).items():
            expected = whole[name] if np.ndim(values) == 0 else whole[name][samples]
            assert np.array_equal(values, expected), name


@pytest.mark.parametrize("draw_samples", [draw_tuples, draw_clips, draw_each_label])
@pytest.mark.parametrize("other", [{"seed": 2}, {"purpose": "else"}, {"epoch": 3}])
def test_another_seed_purpose_or_epoch_gives_another_sample(
    other: dict, draw_samples: Callable[..., ClipDraws]
) -> None:
    named = {"seed": 1, "purpose": "test", "epoch": 2, "samples": np.arange(50), "lengths": np.full(50, 300)}
    a, b = (flat(draw_samples(TrialConfig(), **given, train=True)) for given in (named, {**named, **other}))
    asks_each = {"label"} if draw_samples is draw_each_label else set()
    for name in set(a) - {"quadrants", "colour.blur_radius"} - asks_each:  # these are fixed
        assert not np.array_equal(a[name], b[name]), name
