"""What every layout is read into: one row for each video, and how the reader came to it."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

import pandas as pd

COLUMNS = ["video", "label", "action", "split", "group"]
#: Without lists and test folder, this share of the groups, the first by the hash of their names, is the test list.
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Row:
    """One video. Without a `split` kdtune chooses it; without a `label` classes are numbered by name."""

    video: str
    action: str
    split: str  # "train", "test" or ""
    group: str
    label: int | None = None


@dataclass
class Reading:
    """What a layout says of its videos, for programs and for people."""

    layout: str
    """What was recognised, in words."""
    rows: list[Row] = field(default_factory=list)
    guesses: list[str] = field(default_factory=list)
    """What the reader decided where the data set does not say."""
    notes: list[str] = field(default_factory=list)
    """What is odd but allowed."""
    others: Counter[str] = field(default_factory=Counter)
    """Ending → number of files beside the videos that were passed over."""


def table(rows: list[Row]) -> pd.DataFrame:
    """Return the catalog of `rows`, sorted by video; rows without a split are divided by group."""
    numbers = {action: number for number, action in enumerate(sorted({row.action for row in rows}))}
    content = [
        (row.video, numbers[row.action] if row.label is None else row.label, row.action, row.split, row.group)
        for row in rows
    ]
    catalog = pd.DataFrame(sorted(content), columns=COLUMNS).astype({"label": "int64"})
    open_rows = catalog["split"] == ""
    if open_rows.any():
        test = held_out(set(catalog.loc[open_rows, "group"]))
        chosen = catalog["group"].isin(test).map({True: "test", False: "train"})
        catalog["split"] = catalog["split"].where(~open_rows, chosen)
    return catalog


def held_out(groups: set[str]) -> set[str]:
    """Return the fifth of `groups` that is the test list: the first by the hash of their names."""
    by_hash = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).hexdigest())
    return set(by_hash[: max(1, round(TEST_SHARE * len(by_hash)))])
