"""One order (DESIGN 4.3): nested, stratified fractions, and validation carved by group; on the official lists."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from helpers import SHARED

from kdtune.clips.order import carve_validation, fraction_size, one_order

FRACTIONS = (1.0, 0.5, 0.25, 0.02)
SETS = ("ucf101", "hmdb51")
SIZES = {"ucf101": (9537, 3783), "hmdb51": (3570, 1530)}  # REFERENCE.md, "Training"


def official(name: str) -> tuple[list[tuple[str, str, str]], int]:
    """Return (video, class, group) of split 1's training list, read without kdtune, and the number of test videos."""
    folder = SHARED / "splits" / name
    if not folder.is_dir():
        pytest.skip(f"the official lists of {name} are not in {folder}")
    rows, tests = [], 0
    if name == "ucf101":
        tests = len((folder / "testlist01.txt").read_text().split())
        for line in (folder / "trainlist01.txt").read_text().splitlines():
            video = line.split()[0]
            rows.append((video, video.split("/")[0], video.split("_")[-2]))
    else:
        for path in sorted(folder.glob("*_test_split1.txt")):
            action = path.name[: -len("_test_split1.txt")]
            for line in path.read_text().splitlines():
                if line.strip():
                    video, use = line.split()
                    tests += use == "2"
                    if use == "1":
                        film = video[: video.rindex(f"_{action}_")]
                        rows.append((f"{action}/{video}", action, film))
    return rows, tests


def table(rows: list[tuple[str, str, str]]) -> pd.DataFrame:
    classes = sorted({action for _, action, _ in rows})
    return pd.DataFrame(
        {"video": [r[0] for r in rows], "label": [classes.index(r[1]) for r in rows], "group": [r[2] for r in rows]}
    )


@pytest.fixture(scope="module", params=SETS)
def lists(request: pytest.FixtureRequest) -> tuple[str, pd.DataFrame, int]:
    rows, tests = official(request.param)
    return request.param, table(rows), tests


def small() -> pd.DataFrame:
    """Three classes of 12, 7 and 3 videos in 5 groups."""
    sizes = {"a": 12, "b": 7, "c": 3}
    return table([(f"{c}/v_{i:02d}", c, f"g{i % 5}") for c, n in sizes.items() for i in range(n)])


def test_the_lists_are_those_of_the_papers(lists: tuple[str, pd.DataFrame, int]) -> None:
    name, train, tests = lists
    assert (len(train), tests) == SIZES[name]


@pytest.mark.parametrize("carved", [False, True], ids=["whole list", "without validation"])
def test_fractions_are_stratified_and_nested(lists: tuple[str, pd.DataFrame, int], carved: bool) -> None:
    train = lists[1]
    if carved:
        train = train[~carve_validation(train, 0.2, 0)]
    ordered = one_order(train, 0)
    assert sorted(ordered.index) == sorted(train.index)
    sizes = train["label"].value_counts().sort_index().to_numpy()
    below: set[str] = set()
    for fraction in sorted(FRACTIONS):
        part = ordered[: fraction_size(len(ordered), fraction)]
        assert below < set(part["video"])
        below = set(part["video"])
        counts = np.bincount(part["label"], minlength=len(sizes))
        assert np.abs(counts - fraction * sizes).max() <= 1
    assert below == set(train["video"])
    # Any other fraction is stratified, too, because every prefix is.
    one_hot = ordered["label"].to_numpy()[:, None] == np.arange(len(sizes))
    share = np.arange(1, len(ordered) + 1)[:, None] / len(ordered)
    assert np.abs(one_hot.cumsum(0) - share * sizes).max() <= 1


@pytest.mark.parametrize("total", [2, 22, 193, 9537])
@pytest.mark.parametrize("fraction", [*FRACTIONS, 0.001, 0.29])
def test_a_fraction_has_its_share_of_the_videos(total: int, fraction: float) -> None:
    exact = Fraction(str(fraction)) * total
    size = fraction_size(total, fraction)
    assert 1 <= size <= total
    assert size == 1 or abs(size - exact) <= Fraction(1, 2)


def test_the_order_depends_on_names_and_seed_alone() -> None:
    train = small()
    order = one_order(train, 0)["video"].tolist()
    for seed in range(3):
        assert one_order(train.sample(frac=1, random_state=seed), 0)["video"].tolist() == order
    assert one_order(train, 1)["video"].tolist() != order
    # The first rows differ between seeds within a class, too, not only between classes.
    firsts = {next(v for v in one_order(train, seed)["video"] if v.startswith("a/")) for seed in range(10)}
    assert len(firsts) > 3


def test_the_order_stays() -> None:
    # Golden: another order makes other training sets, so it may change only with TRAINER_SEMANTICS.
    names = "\n".join(one_order(small(), 0)["video"])
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == "ebab1a590db463f7"
    carved = "\n".join(small()["video"][carve_validation(small(), 0.2, 0)])
    assert hashlib.sha256(carved.encode()).hexdigest()[:16] == "0cf4fdbf87044432"


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3])
@pytest.mark.parametrize("seed", [0, 1])
def test_validation_is_carved_by_group_near_the_asked_share(
    lists: tuple[str, pd.DataFrame, int], share: float, seed: int
) -> None:
    train = lists[1]
    held_out = carve_validation(train, share, seed)
    assert list(held_out.index) == list(train.index)
    assert set(train["group"][held_out]).isdisjoint(train["group"][~held_out])
    largest = train["group"].value_counts().max() / len(train)
    assert abs(held_out.mean() - share) <= max(0.01, largest / 2 + 0.01)
    # Every action can be learned and evaluated.
    for part in (train[held_out], train[~held_out]):
        assert part["label"].nunique() == train["label"].nunique()


def test_carving_depends_on_names_and_seed_alone(lists: tuple[str, pd.DataFrame, int]) -> None:
    train = lists[1]
    carved = set(train["video"][carve_validation(train, 0.2, 0)])
    mixed = train.sample(frac=1, random_state=0)
    assert set(mixed["video"][carve_validation(mixed, 0.2, 0)]) == carved
    assert set(train["video"][carve_validation(train, 0.2, 1)]) != carved


def test_validation_may_be_carved_by_single_videos() -> None:
    train = small()
    carved = carve_validation(train, 0.2, 0, "videos")
    assert carved.sum() == round(0.2 * len(train))
    assert set(train["group"][carved]) & set(train["group"][~carved]), "no group is on both sides"
    shuffled = train.sample(frac=1, random_state=1)
    again = set(shuffled["video"][carve_validation(shuffled, 0.2, 0, "videos")])
    assert again == set(train["video"][carved])
    assert again != set(train["video"][carve_validation(train, 0.2, 1, "videos")])
    assert not carve_validation(train, 0, 0, "videos").any()
