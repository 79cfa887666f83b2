"""Find files of a data set with the same bytes: contradictory labels, leaked test videos, harmless copies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kdtune.clips.catalog import PARTS, video_path
from kdtune.clips.layout.names import counted, problem, some
from kdtune.clips.video.decode import header_frames
from kdtune.config.sections import DataConfig
from kdtune.errors import DataError

#: Default of `data.same_bytes` where it is not "refuse": the official lists are the protocol, copies included.
DEFAULTS = {"ucf101": "allow", "hmdb51": "allow"}
#: Maximum number of copies of one video that a message names.
COPIES_SHOWN = 3


@dataclass(frozen=True)
class Duplicates:
    """Videos with the same bytes."""

    videos: tuple[str, ...]
    two_classes: bool
    splits: tuple[str, ...]
    """"train", "val", "test": the splits that the videos are in."""

    @property
    def harmful(self) -> bool:
        return self.two_classes or len(self.splits) > 1

    def __str__(self) -> str:
        return " = ".join(self.videos[:COPIES_SHOWN]) + (" = …" if len(self.videos) > COPIES_SHOWN else "")


def same_bytes(catalog: pd.DataFrame, hashes: list[str], root: Path) -> list[Duplicates]:
    """Return the videos whose files have the same SHA-256, in the catalog's order.

    Leaves out files that are no videos (empty files, a download's error page): decoding refuses those.
    """
    rows = catalog.assign(sha256=hashes)
    rows = rows[rows["sha256"].duplicated(keep=False)]
    found = []
    for _, same in rows.groupby("sha256", sort=False):
        if header_frames(video_path(root, same["video"].iloc[0])):
            videos = tuple(same["video"])
            splits = tuple(part for part in PARTS if part in set(same["split"]))
            found.append(Duplicates(videos, same["action"].nunique() > 1, splits))
    return found


def refuse_harmful(data: DataConfig, found: list[Duplicates]) -> list[str]:
    """Raise DataError where the same bytes are in two classes, or in two splits.

    Where `data.same_bytes` allows that, return warnings instead.
    """
    harmful = {"two classes": [same for same in found if same.two_classes]}
    for same in found:
        if len(same.splits) > 1 and not same.two_classes:
            lists = " and ".join(f"the {PARTS[part]}" for part in same.splits)
            harmful.setdefault(f"{lists} list", []).append(same)
    problems = []
    for where, several in harmful.items():
        if several:
            what = f"{_videos_are(several)} in {where}, byte for byte: {some(several)}"
            problems.append(problem(data.folder, what, "one copy of each; or data.same_bytes: allow"))
    if problems and (data.same_bytes or DEFAULTS.get(data.dataset, "refuse")) == "refuse":
        raise DataError(problems)
    return [f"{problem.where}: {problem.what}" for problem in problems]


def notes_on(found: Iterable[Duplicates]) -> list[str]:
    """Return notes on harmless copies, which may end up in both training and validation."""
    copies = [same for same in found if not same.harmful]
    if not copies:
        return []
    remedy = "one group for all copies in groups.csv keeps training out of validation"
    return [f"{_videos_are(copies)} twice in one class, byte for byte: {some(copies)}; {remedy}"]


def _videos_are(found: list[Duplicates]) -> str:
    return f"{counted(len(found), 'video')} {'is' if len(found) == 1 else 'are'}"
