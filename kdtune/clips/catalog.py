"""The catalog: class, official split and group of each video, as one table for every kind of data set.

A catalog is a DataFrame with the columns
    video   POSIX path below the root as the lists spell it (use `video_path` to find the file)
    label   class number from 0
    action  class name
    split   "train", "val" (only where the data set itself says which videos are validation) or "test"
    group   videos that must stay in one split: they share actor, background or source film
with rows sorted by `video` and an index of 0..N-1. `layout/` reads folders and lists into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from kdtune.clips.layout.cuts import group_guesses
from kdtune.clips.layout.folders import read_folders
from kdtune.clips.layout.groups import GROUPS, apply_groups
from kdtune.clips.layout.listed import find_lists, read_lists
from kdtune.clips.layout.lists import hmdb51_rows, ucf101_rows
from kdtune.clips.layout.names import Names, counted, kind_of, missing_videos, problem, some
from kdtune.clips.layout.pictured import frames_for_files
from kdtune.clips.layout.rows import COLUMNS, Reading, table
from kdtune.clips.layout.text import names_in
from kdtune.clips.layout.unread import like_lists, note_unlisted, unknown_lists
from kdtune.config.sections import DataConfig
from kdtune.errors import DataError, Problem
from kdtune.parse import problem_of

__all__ = ["COLUMNS", "DataSet", "load_catalog", "read_data_set", "video_path"]

#: Split of the catalog → its name for people.
PARTS = {"train": "training", "val": "validation", "test": "test"}
WHERE_FROM = {
    "synthetic": "make it with `kdtune data synth`",
    "ucf101": "UCF-101 is at https://www.crcv.ucf.edu/data/UCF101.php; its class folders belong here",
    "hmdb51": "HMDB51 is at https://serre.lab.brown.edu/hmdb51.html; its class folders belong here",
    "folder": "a folder with one folder of videos for each class belongs here",
}


@dataclass(frozen=True)
class DataSet:
    """A data set: its catalog, and how it was read."""

    data: DataConfig
    catalog: pd.DataFrame
    reading: Reading


def load_catalog(data: DataConfig) -> pd.DataFrame:
    """Return the catalog of the data set that `data` names, with every listed video on disk.

    Raises DataError with all problems: a missing root, missing or broken lists, mixed layouts, classes without training
    videos, missing videos.
    """
    return read_data_set(data).catalog


def video_path(root: Path, video: str) -> Path:
    """Return the file of a catalog's `video`, even if its path differs from the disk in case or Unicode normal form.

    UCF101's archives and lists disagree over HandstandPushups and HandStandPushups. A path that does not exist is
    returned as it was listed. Raises OSError where a folder on the way cannot be read.
    """
    return Names(root).path(video)


def read_data_set(data: DataConfig) -> DataSet:
    """Return the catalog with what was recognised, guessed and skipped. Raises DataError as `load_catalog` does."""
    root = Path(data.folder)
    lists = Path(data.lists) if data.lists else root
    names, problems = Names(root), _root_problems(data, root)
    if problems and lists == root:
        raise DataError(problems)  # a missing root has no lists either; one message is enough
    there = not problems
    found = list[Problem]()
    reading = _reading(data, root if there else None, lists, names, found)
    problems += found
    catalog = table(reading.rows)
    trained = set(catalog.loc[catalog["split"] == "train", "action"])
    if not found:  # else the training videos may be in the part that could not be read
        for action in sorted(set(catalog["action"]) - trained):
            problems.append(problem(lists, f"class {action} has no training videos"))
    if there:
        problems += _files(root, names, catalog, reading)
    if not problems and not len(catalog):
        problems.append(problem(root, "no videos in class folders", WHERE_FROM[data.dataset]))
    if not problems and catalog["action"].nunique() == 1:
        what = f"has only one class, {catalog['action'][0]}: there is nothing to tell apart"
        problems.append(problem(root, what, "at least two classes"))
    if problems:
        raise DataError(dict.fromkeys(problems))
    if data.split != 1 and "list" not in reading.layout:
        reading.notes.append(f"data.split: {data.split} has no effect without lists")
    reading.notes += _notes(data, catalog)
    return DataSet(data, catalog, reading)


def _root_problems(data: DataConfig, root: Path) -> list[Problem]:
    try:
        kind = kind_of(root)
    except OSError as error:
        return [problem_of(root, error)]
    if kind == "folder":
        return []
    what = f"the videos of {data.dataset} should be in {root.absolute()}, which is not a folder"
    return [problem("data.root", f"{what}; {WHERE_FROM[data.dataset]}, or set data.root")]


def _reading(data: DataConfig, root: Path | None, lists: Path, names: Names, problems: list[Problem]) -> Reading:
    """Read the lists or, for a folder without lists, the folders. `root` is None where it does not exist."""
    if data.dataset == "hmdb51":
        reading = Reading("HMDB51's lists", hmdb51_rows(lists, data.split, names, problems))
        if root is not None:
            problems += frames_for_files(root, lists, names, reading)
        return reading
    listed = set(names_in(lists.parent if lists.is_file() else lists, problems)) if data.dataset == "folder" else set()
    known = {"classInd.txt", *(f"{part}list{split:02d}.txt" for part in ("train", "test") for split in (1, 2, 3))}
    if data.dataset != "folder" or (listed & known and not lists.is_file()):
        reading = Reading("UCF101's lists", ucf101_rows(lists, data.split, names, problems))
        if root is not None:
            problems += frames_for_files(root, lists, names, reading)
        if data.dataset == "folder" and root is not None:
            note_unlisted(root, lists, names, reading)
    elif root is not None:
        found, wrong = find_lists(lists, sorted(listed), data.split, given=data.lists is not None)
        problems += wrong
        if found:
            reading = read_lists(found, lists, root, names, problems)
        else:
            problems += unknown_lists(lists, listed, given=data.lists is not None and not wrong)
            reading = read_folders(root, lists, problems)
        if others := sorted(set(like_lists(listed)) - reading.files):
            reading.notes.append(f"files that may be lists are not read: {some(others)}")
    else:
        return Reading("")
    if GROUPS in listed:
        apply_groups((lists.parent if lists.is_file() else lists) / GROUPS, names, reading, problems)
    elif data.dataset == "folder" and not reading.grouped:
        reading.guesses += group_guesses(reading.rows)
    return reading


def _files(root: Path, names: Names, catalog: pd.DataFrame, reading: Reading) -> list[Problem]:
    """Return the problems of a catalog's files: missing, unreadable, or one file under two names."""
    missing, paths, problems = missing_videos(names, catalog["video"], "folder" if reading.frames else "file")
    if missing:
        what = f"{len(missing)} of {len(catalog)} listed videos are missing: {some(missing)}"
        around = [name for name in names_in(root, problems) if _holds(root / name, missing[0])]
        remedy = f"set data.root to {root / around[0]}" if around else ""
        problems.append(problem(root, what, remedy))
    spellings: dict[Path, list[str]] = {}
    for video, path in paths.items():
        spellings.setdefault(path, []).append(video)
    twice = [" and ".join(videos) for videos in spellings.values() if len(videos) > 1]
    if twice:
        what = f"{counted(len(twice), 'video')} listed twice, in spellings of the same file: {some(twice)}"
        problems.append(problem(root, what))
    return problems


def _holds(folder: Path, video: str) -> bool:
    try:
        return kind_of(folder / video) == "file"
    except OSError:
        return False


def _notes(data: DataConfig, catalog: pd.DataFrame) -> list[str]:
    """Return notes on what is odd in a catalog but allowed."""
    notes = []
    groups = catalog.groupby("split")["group"].agg(set)
    for one, other in combinations([part for part in PARTS if part in groups.index], 2):
        if shared := sorted(groups[one] & groups[other]):
            what = "has" if len(shared) == 1 else "have"
            where = f"the {PARTS[one]} and the {PARTS[other]} list"
            notes.append(f"{counted(len(shared), 'group')} {what} videos in {where}: {some(shared)}")
    for part in [part for part in ("val", "test") if part in groups.index or part == "test"]:
        without = sorted(set(catalog["action"]) - set(catalog.loc[catalog["split"] == part, "action"]))
        if without:
            notes.append(f"no {PARTS[part]} videos of {counted(len(without), 'class')}: {some(without)}")
    if "val" in groups.index and data.validation > 0:
        fields = DataConfig.model_fields
        for field in ("validation", "carve"):
            if (value := getattr(data, field)) != fields[field].default:
                notes.append(f"data.{field}: {value} has no effect: the data set says which videos are validation")
    return notes
