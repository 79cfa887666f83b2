"""The result of reading any layout: one row per video, and what was guessed."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

import pandas as pd

COLUMNS = ["video", "label", "action", "split", "group"]
#: Share of the groups that is the test list where there are no lists and no test folder.
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Row:
    """One video. Where `split` is empty, kdtune chooses it; where `label` is None, classes are numbered by name."""

    video: str
    action: str
    split: str  # "train", "val", "test" or ""
    group: str
    label: int | None = None


@dataclass
class Reading:
    """The videos of a layout, with messages on how they were read."""

    layout: str
    """Name of the recognised layout, in words."""
    rows: list[Row] = field(default_factory=list)
    guesses: list[str] = field(default_factory=list)
    """Decisions on what the data set leaves open."""
    notes: list[str] = field(default_factory=list)
    """Oddities that are allowed."""
    others: Counter[str] = field(default_factory=Counter)
    """Suffix → number of skipped files that are not videos."""
    frames: dict[str, int] = field(default_factory=dict)
    """Number of frames of each video, where the videos are folders of frames; empty where they are files."""
    files: set[str] = field(default_factory=set)
    """Names of the files in the folder of lists that were read."""
    grouped: bool = False
    """Whether the lists name the groups."""


def table(rows: list[Row]) -> pd.DataFrame:
    """Return the catalog of `rows`, sorted by video. Rows without a split are split by group."""
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
    """Return the share TEST_SHARE of `groups` that is the test list: the first by the hash of their names."""
    by_hash = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).hexdigest())
    return set(by_hash[: max(1, round(TEST_SHARE * len(by_hash)))])
