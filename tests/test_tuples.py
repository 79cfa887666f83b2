"""The PCL sample (REFERENCE.md): where clips lie, how labels are drawn; a sample's draws are its own (DESIGN 4.1)."""

from __future__ import annotations

from dataclasses import fields
from itertools import combinations, permutations

import numpy as np
import pytest
from helpers import FakeClips, chi_square

from kdtune.clips.tuples import TupleDraws, draw_tuples, read_clips
from kdtune.config.trial import TrialConfig

NONE, ROTATION, SPATIAL, TEMPORAL, REMOTE = range(5)
T, SPAN, DISTANCE = 10, 46, 16  # KD's clips, PCL's tuple_total_frames and remote distance
MANY = 800


def draw(lengths: int | np.ndarray, count: int = MANY, train: bool = False, **raw: dict) -> TupleDraws:
    samples = np.arange(count)
    config = TrialConfig.model_validate(raw)
    lengths = np.broadcast_to(lengths, (count,))
    return draw_tuples(config, seed=1, purpose="test", epoch=2, samples=samples, lengths=lengths, train=train)


def flat(draws: TupleDraws) -> dict[str, np.ndarray | int]:
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
    # The tuple starts anywhere where all of tuple_frames fits, each place as often.
    counts = np.bincount(first)
    assert len(counts) == 10
    assert chi_square(counts, np.full(10, MANY / 10)) < 3.1  # 99.9 % point of χ²/9


def test_a_video_of_just_the_tuples_length_has_one_place() -> None:
    assert (draw(SPAN, 200).start == [0, 11, 22]).all()


# ---- labels ----------------------------------------------------------------------------------------------------------


def prior(length: int, rule: str) -> np.ndarray:
    """Exact label probabilities of PCL's load4clips for a video of `length` frames, by going through all starts."""
    starts = range(length - SPAN + 1)
    forward = [start - T - DISTANCE >= 0 for start in starts]
    backward = [length - start - SPAN - T - DISTANCE >= 0 for start in starts]
    combine = all if rule == "both" else any
    room = np.mean([combine(pair) for pair in zip(forward, backward, strict=True)])
    # One in five is asked to be remote; without room it is drawn again from the other four.
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
        # Where both sides have room, each is taken as often.
        assert abs(before[both].mean() - 0.5) < 3.3 * 0.5 / both.sum() ** 0.5


def test_a_remote_clip_may_lie_anywhere_on_its_side() -> None:
    # One place for the tuple with room on both sides, and one place on each side for the remote clip.
    draws = draw(98)
    remote = draws.label == REMOTE
    assert set(draws.start[remote, 0]) == {26}
    assert set(draws.start[remote, 1]) == {0, 88}
    # In a longer video its distance from the tuple takes every value that there is room for.
    draws = draw(74, count=2000, pretext={"remote": "either"})
    remote = draws.label == REMOTE
    first, middle = draws.start[remote, 0], draws.start[remote, 1]
    before = middle < first
    assert set((first - middle - T)[before]) == {16, 17, 18}
    assert set((middle - first - SPAN)[~before]) == {16, 17, 18}


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


def test_crops_go_to_every_edge_and_are_centred_for_an_evaluation() -> None:
    crops = draw(100, train=True).crop
    assert crops.reshape(-1, 2).min(0).tolist() == [0, 0]
    assert crops.reshape(-1, 2).max(0).tolist() == [128 - 112, 171 - 112]
    # One draw a clip: the three clips of a tuple are cropped apart.
    assert (crops[:, 0] != crops[:, 1]).any(1).mean() > 0.9
    plain = draw(100, 20)
    assert np.abs(2 * plain.crop - [128 - 112, 171 - 112]).max() <= 1
    assert plain.colour is None


def test_colour_is_drawn_as_simclr_says() -> None:
    colour = draw(100, train=True).colour
    assert colour is not None
    clips = 3 * MANY
    for name, p in {"jitter": 0.8, "grey": 0.2, "blur": 0.5, "flip": 0.5}.items():
        assert abs(getattr(colour, name).mean() - p) < 3.3 * (p * (1 - p) / clips) ** 0.5
    ranges = {"brightness": (0.6, 1.4), "contrast": (0.6, 1.4), "saturation": (0.6, 1.4), "hue": (-0.1, 0.1)}
    for name, (low, high) in {**ranges, "sigma": (0.1, 2.0)}.items():
        values = getattr(colour, name).ravel()
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high >= values.max() > high - 0.01 * (high - low)
        counts = np.histogram(values, 10, (low, high))[0]
        assert chi_square(counts, np.full(10, clips / 10)) < 3.1
    orders = [tuple(order) for order in colour.order.reshape(-1, 4)]
    counts = np.array([orders.count(order) for order in permutations(range(4))])
    assert counts.sum() == clips
    assert chi_square(counts, np.full(24, clips / 24)) < 2.2


# ---- a sample's draws are its own ------------------------------------------------------------------------------------


def test_a_samples_draws_do_not_depend_on_its_batch_or_on_the_fraction() -> None:
    lengths = np.array([60, 100, 200, 150, 98, 400])

    def part(samples: list[int], fraction: float) -> dict:
        config = TrialConfig.model_validate({"data": {"fraction": fraction}})
        at = np.array(samples)
        named = {"seed": 1, "purpose": "test", "epoch": 2}
        return flat(draw_tuples(config, **named, samples=at, lengths=lengths[at], train=True))

    whole = part([0, 1, 2, 3, 4, 5], 1.0)
    for samples, fraction in (([4], 1.0), ([5, 0, 3], 1.0), ([2, 1], 0.02)):
        for name, values in part(samples, fraction).items():
            expected = whole[name] if np.ndim(values) == 0 else whole[name][samples]
            assert np.array_equal(values, expected), name


@pytest.mark.parametrize("other", [{"seed": 2}, {"purpose": "else"}, {"epoch": 3}])
def test_another_seed_purpose_or_epoch_gives_another_sample(other: dict) -> None:
    named = {"seed": 1, "purpose": "test", "epoch": 2, "samples": np.arange(50), "lengths": np.full(50, 300)}
    a, b = (flat(draw_tuples(TrialConfig(), **given, train=True)) for given in (named, {**named, **other}))
    for name in ("label", "start", "crop", "quarter_turns", "chunks", "colour.hue", "colour.order", "colour.flip"):
        assert not np.array_equal(a[name], b[name]), name


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
