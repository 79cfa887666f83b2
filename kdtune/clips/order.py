"""The one order (DESIGN 4.3): carve validation by group, and fix one class-balanced permutation of the training videos.

A data fraction f is the first f·N entries of that order: stratified, and nested (2 % ⊂ 25 % ⊂ 50 % ⊂ 100 %).
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pandas as pd

from kdtune.config.sections import DataConfig


def _hash(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def carve_validation(train: pd.DataFrame, share: float, seed: int, by: str = "groups") -> pd.Series:
    """Return which rows of `train` (columns video, label, group) are validation, as a boolean series on its index.

    Groups are considered in the order of their hash; a group is carved if that brings the classes' validation counts,
    taken together, nearer to `share`. With `by="videos"`, single videos are carved instead until they make up `share`.
    """
    if by == "videos":
        first = sorted(train["video"], key=lambda name: _hash(seed, f"validation/{name}"))
        return train["video"].isin(first[: math.floor(share * len(train) + 0.5)])
    counts = pd.crosstab(train["group"], train["label"])
    wanted = share * counts.sum(axis=0).to_numpy()
    carved_counts = np.zeros_like(wanted)
    carved = []
    for group in sorted(counts.index, key=lambda name: _hash(seed, str(name))):
        with_group = carved_counts + counts.loc[group].to_numpy()
        if np.abs(with_group - wanted).sum() < np.abs(carved_counts - wanted).sum():
            carved_counts = with_group
            carved.append(group)
    return train["group"].isin(carved)


def validation_rows(rows: pd.DataFrame, data: DataConfig, *, given: bool) -> pd.Series:
    """Return which `rows` of the training list are validation, as a boolean series on its index.

    `given` says whether the data set names its validation videos (split "val"): then they are the ones, unless
    `data.validation` is 0. Otherwise `carve_validation` chooses them.
    """
    if given:
        return (rows["split"] == "val") & (data.validation > 0)
    return carve_validation(rows, data.validation, data.subset_seed, data.carve)


def one_order(train: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the rows of `train` (columns video, label) in the one order.

    Within a class, videos are sorted by the hash of (seed, name). The r-th of a class's n videos gets the place
    (r + ½)/n, and all classes are merged by place. Any prefix then holds each class in proportion, to within one video.
    """
    by_hash = train.assign(_hash=[_hash(seed, video) for video in train["video"]]).sort_values("_hash")
    rank = by_hash.groupby("label").cumcount()
    size = by_hash.groupby("label")["video"].transform("size")
    placed = by_hash.assign(_place=(rank + 0.5) / size).sort_values(["_place", "_hash"], kind="stable")
    return placed.drop(columns=["_hash", "_place"])


def fraction_size(total: int, fraction: float) -> int:
    """Return how many entries of the one order a fraction covers: f·N rounded half up, at least one."""
    return max(1, math.floor(fraction * total + 0.5))
