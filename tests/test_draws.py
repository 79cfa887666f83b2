"""Randomness is a function (DESIGN 4.1): no state, the same in any order and process, and uniform."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import fields

import numpy as np
import pytest
from helpers import chi_square, run_python

from kdtune.clips.draws import below, shuffled, uniforms
from kdtune.clips.tuples import draw_tuples
from kdtune.config.trial import TrialConfig

WHERE = {"seed": 3, "purpose": "test", "epoch": 5, "sample": 7, "clip": 2}
MASK = 2**64 - 1


def philox_words(key: tuple[int, int], count: int) -> list[int]:
    """Philox4x64-10 as in Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", in plain integers."""
    words: list[int] = []
    for block in itertools.count(1):
        counter, (k0, k1) = [block, 0, 0, 0], key
        for _ in range(10):
            low, high = counter[0] * 0xD2E7470EE14C6C93, counter[2] * 0xCA5A826395121157
            counter = [high >> 64 ^ counter[1] ^ k0, high & MASK, low >> 64 ^ counter[3] ^ k1, low & MASK]
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
        words += counter
        if len(words) >= count:
            return words[:count]
    raise AssertionError


def test_the_bits_are_philox_on_a_key_from_blake2() -> None:
    name = hashlib.blake2b(b"3/test/5/7/2", digest_size=16).digest()
    key = int.from_bytes(name[:8], "little"), int.from_bytes(name[8:], "little")
    expected = [(word >> 11) / 2**53 for word in philox_words(key, 11)]
    assert uniforms(11, **WHERE).tolist() == expected


def test_a_draw_does_not_depend_on_what_was_drawn_before() -> None:
    places = [{**WHERE, "epoch": e, "sample": s} for e in range(3) for s in range(3)]
    forward = [uniforms(4, **place).tobytes() for place in places]
    np.random.seed(1)
    backward = [uniforms(4, **place).tobytes() for place in reversed(places)]
    assert forward == backward[::-1]
    assert len(set(forward)) == len(places)


def test_fewer_draws_are_the_first_of_more() -> None:
    longest = uniforms(100, **WHERE)
    for n in (0, 1, 3, 4, 5, 99):
        assert uniforms(n, **WHERE).tobytes() == longest[:n].tobytes()


@pytest.mark.parametrize("salt", [1, 2])
def test_draws_are_the_same_in_another_process(salt: int) -> None:
    code = f"from kdtune.clips.draws import uniforms; print(uniforms(9, **{WHERE!r}).tobytes().hex())"
    assert run_python(code, hash_seed=salt).stdout.strip() == uniforms(9, **WHERE).tobytes().hex()


@pytest.mark.parametrize("field", WHERE)
def test_each_part_of_the_name_gives_other_and_unrelated_draws(field: str) -> None:
    other = {**WHERE, field: "other" if field == "purpose" else int(WHERE[field]) + 1}
    a, b = uniforms(4000, **WHERE), uniforms(4000, **other)
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / 4000**0.5


def test_names_do_not_run_into_each_other() -> None:
    numbers = (0, 1, 10, 11, 101)
    seen = {
        uniforms(2, seed=a, purpose="p", epoch=b, sample=c, clip=d).tobytes()
        for a, b, c, d in itertools.product(numbers, repeat=4)
    }
    assert len(seen) == len(numbers) ** 4


@pytest.mark.parametrize("along", ["one stream", "samples", "epochs"])
def test_draws_are_uniform(along: str) -> None:
    n, bins = 10_000, 50
    if along == "one stream":
        u = uniforms(n, **WHERE)
    else:
        field = along[:-1]
        u = np.array([uniforms(1, **{**WHERE, field: i})[0] for i in range(n)])
    assert u.min() >= 0
    assert u.max() < 1
    # The 0.1 % and 99.9 % points of χ²/49 are 0.49 and 1.73; the draws are fixed, so this holds always or never.
    assert 0.49 < chi_square(np.bincount((u * bins).astype(int), minlength=bins), np.full(bins, n / bins)) < 1.73
    pairs = (u[:-1] * 7).astype(int) * 7 + (u[1:] * 7).astype(int)
    assert 0.43 < chi_square(np.bincount(pairs, minlength=49), np.full(49, (n - 1) / 49)) < 1.75


@pytest.mark.parametrize("n", [1, 2, 3, 5, 1000, 2**31 - 1])
def test_below_stays_below(n: int) -> None:
    assert below(0.0, n) == 0
    assert below(1 - 2.0**-53, n) == n - 1
    assert [below((i + 0.5) / n, n) for i in range(min(n, 5))] == list(range(min(n, 5)))


def test_an_epochs_order_is_a_permutation_of_its_own() -> None:
    orders = {(s, e): shuffled(200, seed=s, epoch=e) for s in (0, 1) for e in (1, 2)}
    for order in orders.values():
        assert sorted(order.tolist()) == list(range(200))
    assert len({order.tobytes() for order in orders.values()}) == 4
    # Every sample occurs at every position: its mean position over many epochs is the middle.
    places = np.stack([np.argsort(shuffled(20, seed=0, epoch=e)) for e in range(2000)])
    assert np.abs(places.mean(0) - 9.5).max() < 4 * (399 / 12 / 2000) ** 0.5


def test_the_order_of_a_fraction_is_the_whole_order_without_the_others() -> None:
    whole = shuffled(500, seed=4, epoch=9)
    for part in (2, 10, 250):
        assert shuffled(part, seed=4, epoch=9).tolist() == whole[whole < part].tolist()


#: SHA-256 of the draws for 64 tuples. An intended change must raise TRAINER_SEMANTICS.
GOLDEN = {
    "label": "d3fe8cbc046c0ba3",
    "start": "e976663a175d9485",
    "crop": "0ba4b52d14fc8afa",
    "quarter_turns": "8917f86c95978355",
    "quadrants": "c7ca199fdeb6e184",
    "chunks": "8c7c0eb53ff8fb60",
    "jitter": "621651f3c5a29966",
    "order": "521c7f49905ca173",
    "brightness": "052427ba718254a6",
    "contrast": "854e6ae09bd73623",
    "saturation": "c9b4a9f407d106b8",
    "hue": "771f6aa6d7c7d2f5",
    "grey": "218b61e4a96a3c01",
    "blur": "d5d90dae5a48e7c3",
    "sigma": "ae8023347f6e33a2",
    "flip": "0bb69ef811039c19",
}


def test_what_is_drawn_for_a_tuple_is_golden() -> None:
    named = {"seed": 1, "purpose": "train", "epoch": 2, "samples": np.arange(64), "lengths": np.arange(64) * 5 + 64}
    draws = draw_tuples(TrialConfig(), **named, train=True)
    drawn = {f.name: getattr(part, f.name) for part in (draws, draws.colour) for f in fields(part)}
    arrays = {name: values for name, values in drawn.items() if isinstance(values, np.ndarray)}
    digests = {
        name: hashlib.sha256(f"{values.dtype.str}{values.shape}".encode() + values.tobytes()).hexdigest()[:16]
        for name, values in arrays.items()
    }
    assert digests == GOLDEN
