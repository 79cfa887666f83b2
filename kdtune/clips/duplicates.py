"""Files of a data set that hold the same bytes: contradictory labels, leaked test videos, copies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kdtune.clips.catalog import video_path
from kdtune.clips.decode import header_frames
from kdtune.clips.layout.names import counted, some
from kdtune.config.sections import DataConfig
from kdtune.errors import DataError, Problem

#: Data sets whose official lists a user cannot mend without leaving the protocol.
OFFICIAL = ("ucf101", "hmdb51")


@dataclass(frozen=True)
class Same:
    """Videos with the same bytes."""

    videos: tuple[str, ...]
    two_classes: bool
    train_and_test: bool

    @property
    def harmful(self) -> bool:
        return self.two_classes or self.train_and_test

    def __str__(self) -> str:
        return " = ".join(self.videos)


def same_bytes(catalog: pd.DataFrame, hashes: list[str], root: Path) -> list[Same]:
    """Return the videos whose files have the same SHA-256, in the catalog's order.

    What is no video (empty files, the same error page of a download) is left out: decoding refuses it.
    """
    rows = catalog.assign(sha256=hashes)
    rows = rows[rows["sha256"].duplicated(keep=False)]
    found = []
    for _, same in rows.groupby("sha256", sort=False):
        if header_frames(video_path(root, same["video"].iloc[0])):
            videos = tuple(same["video"])
            found.append(Same(videos, same["action"].nunique() > 1, same["split"].nunique() > 1))
    return found


def refuse_harmful(data: DataConfig, found: list[Same]) -> list[str]:
    """Raise DataError where the same bytes are in two classes, or in training and test.

    Of an official data set that is no error, for its lists are the protocol: return what to warn of.
    """
    two_classes = [same for same in found if same.two_classes]
    leaked = [same for same in found if same.train_and_test and not same.two_classes]
    problems = []
    if two_classes:
        what = f"{_files(two_classes)} in two classes: {some(two_classes)}"
        problems.append(Problem(data.folder, what, "each video in one class"))
    if leaked:
        what = f"{_files(leaked)} in the training and the test list: {some(leaked)}"
        problems.append(Problem(data.folder, what, "one of each alone; or one group for both in groups.csv, no lists"))
    if problems and data.dataset not in OFFICIAL:
        raise DataError(problems)
    return [f"{problem.where}: {problem.what}" for problem in problems]


def notes_on(found: Iterable[Same]) -> list[str]:
    """Return what to say of copies: harmless ones may be torn into training and validation."""
    copies = [same for same in found if not same.harmful]
    if not copies:
        return []
    remedy = "one group for both in groups.csv keeps them out of validation and training at once"
    return [f"{_files(copies)} twice in one class: {some(copies)}; {remedy}"]


def _files(found: list[Same]) -> str:
    return "the same bytes are" if len(found) == 1 else f"the same bytes are, {counted(len(found), 'time')},"
