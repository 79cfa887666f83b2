"""Read one list of videos: columns separated by commas, tabs, semicolons or blanks, with a header or without."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdtune.clips.layout.names import counted, problem, some
from kdtune.clips.layout.parts import part_of
from kdtune.clips.layout.text import capped, read_text
from kdtune.clips.layout.walk import SUFFIXES
from kdtune.errors import DataError, Problem

#: Column → its usual names, the best first. Compared in lower case, with "_" for blanks and hyphens.
HEADERS = {
    "video": (
        *("path", "video_path", "clip_path", "file_path", "filepath", "frame_dir", "file", "file_name", "filename"),
        *("video", "video_name", "clip", "clip_name", "name", "video_id", "youtube_id"),
    ),
    "label": (
        *("class_name", "label_name", "action_name", "action", "activity", "category", "class", "label", "target"),
        *("class_id", "label_id", "class_index", "label_index"),
    ),
    "split": ("split", "subset", "set", "partition"),
    "group": ("group",),
    "frames": ("total_frames", "num_frames", "n_frames"),
    "start": ("time_start",),
    "end": ("time_end",),
}
#: Separators of columns, in the order in which they are tried. None is any white space.
SEPARATORS = ("\t", ",", ";")


@dataclass(frozen=True)
class Entry:
    """A line of a list, as it is written."""

    where: str
    """File and line."""
    video: str
    label: str = ""
    """Name or number of the class; empty where the list has none."""
    split: str = ""
    """"train", "val" or "test"; empty where the list does not say."""
    group: str = ""
    frames: int | None = None


@dataclass(frozen=True)
class Table:
    """The lines of a list, split into columns."""

    path: Path
    rows: list[tuple[int, list[str]]]
    """Line number, from 1, and the cells of each line that is not empty."""
    columns: dict[str, int]
    """Key of HEADERS → index of the column."""
    has_header: bool

    def entries(self, problems: list[Problem]) -> list[Entry]:
        """Return all entries; add what is wrong to `problems`, with the line."""
        found, entries = list[Problem](), []
        width = 1 + max(self.columns.values())
        for number, cells in self.rows:
            where = f"{self.path}:{number}"
            if len(cells) < width:
                found.append(problem(where, f"has {counted(len(cells), 'column')}, but {width} are expected"))
                continue
            value = {name: cells[place] for name, place in self.columns.items()}
            split, video = part_of(value.get("split", "")), value["video"]
            if not video:
                found.append(problem(where, "names no video"))
            elif value.get("split", "") and not split:
                found.append(problem(where, f"split must be train, val or test, but got {value['split']!r}"))
            else:
                if "start" in value and "end" in value:
                    video = f"{video}_{value['start'].zfill(6)}_{value['end'].zfill(6)}"  # as Kinetics names its files
                count = value.get("frames", "")
                frames = int(count) if count.isdecimal() and len(count) < 10 else None
                entries.append(Entry(where, video, value.get("label", ""), split, value.get("group", ""), frames))
        problems += capped(self.path, found)
        return entries


def read_table(path: Path) -> Table:
    """Read a list. Raises DataError where it is no text, is empty, or its columns cannot be told apart."""
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    if not lines:
        raise DataError([problem(path, "is empty; it must name videos")])
    texts = [line for _, line in lines]
    for separator in (*SEPARATORS, None):
        if columns := _header(_cells(texts[:1], separator)[0]):
            rows = _cells(texts, separator)
            return Table(path, _numbered(lines[1:], rows[1:]), columns, has_header=True)
    rows = _unnamed(texts)
    return Table(path, _numbered(lines, rows), _columns(path, rows), has_header=False)


def _header(cells: Sequence[str]) -> dict[str, int]:
    """Return the columns that a header names; none where the line is no header: it needs a video and one more."""
    names = [re.sub(r"[\s-]+", "_", cell.casefold()) for cell in cells]
    found = {}
    for column, known in HEADERS.items():
        name = next((name for name in known if name in names), None)
        if name is not None:
            found[column] = names.index(name)
    if "video" not in found or len(found) == 1:
        return {}
    # A file of class names has such columns, too.
    return found if names[found["video"]] != "name" or "split" in found else {}


def _unnamed(lines: list[str]) -> list[list[str]]:
    """Split lines without a header: by the separator that each line has equally often, else by white space."""
    for separator in SEPARATORS:
        rows = _cells(lines, separator)
        if len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows):
            return rows
    if all(_is_video(line) for line in lines):
        return [[line] for line in lines]
    tails = [line.rsplit(None, 2)[1:] for line in lines]
    both = all(len(tail) == 2 and all(cell.isdecimal() for cell in tail) for tail in tails)
    return [line.rsplit(None, 2 if both else 1) for line in lines]


def _columns(path: Path, rows: list[list[str]]) -> dict[str, int]:
    """Return what the columns of a list without a header are, by their content. Raises DataError."""
    width = max(map(len, rows))
    columns = [[row[place] if place < len(row) else "" for row in rows] for place in range(width)]
    if width == 1:
        return {"video": 0}
    if width == 2:
        swapped = all(map(_is_video, columns[1])) and not any(map(_is_video, columns[0]))
        return {"video": 1, "label": 0} if swapped else {"video": 0, "label": 1}
    if width == 3 and all(part_of(cell) for cell in columns[2]):
        return {"video": 0, "label": 1, "split": 2}
    if width == 3 and all(cell.isdecimal() for cell in (*columns[1], *columns[2])):
        if any(map(_is_video, columns[0])):
            what = f"has two numbers after a video file ({some(rows[0])}): one label for each video is read"
            raise DataError([problem(path, what, "path label; or, for folders of frames, path frames label")])
        return {"video": 0, "frames": 1, "label": 2}
    what = f"has {width} columns and no header that says what they are: {some(rows[0])}"
    raise DataError([problem(path, what, "a first line such as path,label,split")])


def _is_video(cell: str) -> bool:
    return Path(cell.replace("\\", "/")).suffix.lower() in SUFFIXES


def _cells(lines: list[str], separator: str | None) -> list[list[str]]:
    """Split each line by itself, so that a stray quote spoils one line alone."""
    if separator is None:
        return [line.split() for line in lines]
    return [
        [cell.strip() for row in csv.reader([line], delimiter=separator, skipinitialspace=True) for cell in row]
        for line in lines
    ]


def _numbered(lines: list[tuple[int, str]], rows: list[list[str]]) -> list[tuple[int, list[str]]]:
    return [(number, cells) for (number, _), cells in zip(lines, rows, strict=True)]
