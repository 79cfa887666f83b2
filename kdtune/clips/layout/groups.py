"""Read groups.csv, which says which videos belong together, as spreadsheets and scripts save it."""

from __future__ import annotations

import csv
from dataclasses import replace
from io import StringIO
from pathlib import Path

from kdtune.clips.layout.names import Names, counted, fold, problem, some, unusable
from kdtune.clips.layout.rows import Reading
from kdtune.clips.layout.text import capped, read_text
from kdtune.errors import DataError, Problem

GROUPS = "groups.csv"
#: Separators of columns: a comma, or what spreadsheets use where the comma is the decimal mark.
SEPARATORS = ",;\t"


def apply_groups(path: Path, names: Names, reading: Reading, problems: list[Problem]) -> None:
    """Give each row of `reading` the group that the file names for its video.

    Adds a problem for videos without a group, and a note for groups of unknown videos.
    """
    try:
        group_of = read_groups(path, names)
    except DataError as error:
        problems += error.problems
        return
    alike: dict[str, list[str]] = {}
    for video in group_of:
        alike.setdefault(fold(video), []).append(video)
    rows, without, used = [], [], set[str]()
    for row in reading.rows:
        same = [row.video] if row.video in group_of else alike.get(fold(row.video), [])
        used.update(same)
        groups = {group_of[video] for video in same}
        if len(groups) == 1:
            rows.append(replace(row, group=groups.pop()))
        elif groups:
            what = f"names the groups {some(sorted(groups))} for {row.video}, in spellings that differ only in case"
            problems.append(problem(path, what))
        else:
            without.append(row.video)
    if without:
        what = f"names no group for {counted(len(without), 'video')}: {some(without)}"
        problems.append(problem(path, what))
    reading.rows = rows if len(rows) == len(reading.rows) else reading.rows
    unknown = [video for video in group_of if video not in used]
    if unknown:
        what = "a video that is" if len(unknown) == 1 else f"{len(unknown):,} videos that are"
        reading.notes.append(f"groups.csv names {what} not in the data set: {some(unknown)}")


def read_groups(path: Path, names: Names) -> dict[str, str]:
    """Return a dict of video → group. Raises DataError with all wrong lines."""
    rows = _rows(path)
    if not rows:
        raise DataError([problem(path, "is empty; it needs a line with the columns video and group")])
    header = [name.casefold() for name in rows[0][1]]
    if header.count("video") != 1 or header.count("group") != 1:
        what = f"needs the columns video and group, but has {rows[0][1]}"
        raise DataError([problem(f"{path}:{rows[0][0]}", what)])
    found: dict[str, tuple[str, int]] = {}
    problems = []
    for number, cells in rows[1:]:
        place = f"{path}:{number}"
        while len(cells) > len(header) and not cells[-1]:
            cells.pop()
        if len(cells) != len(header):
            what = f"has {counted(len(cells), 'column')}, but the first line has {len(header)}"
            problems.append(problem(place, f'{what}; a name that contains the separator needs quotes: "a, b"'))
            continue
        video, group = cells[header.index("video")], cells[header.index("group")]
        try:
            video = names.spelled(video)
        except ValueError as error:
            problems.append(problem(place, f"{video} {error}"))
            continue
        if not video or not group:
            problems.append(problem(place, "names no group" if video else "names no video"))
        elif reason := unusable(group):
            problems.append(problem(place, f"group {group} {reason}"))
        elif video in found and found[video][0] != group:
            before, line = found[video]
            problems.append(problem(place, f"puts {video} into the group {group}, but line {line} into {before}"))
        else:
            found[video] = (group, number)
    if problems:
        raise DataError(capped(path, problems))
    return {video: group for video, (group, _) in found.items()}


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return the line number, from 1, and the stripped cells of each row that is not empty."""
    text = read_text(path)
    first = text.lstrip("\n").split("\n", 1)[0]
    separator = max(SEPARATORS, key=first.count)
    reader = csv.reader(StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)
    rows, begins = [], 1
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                rows.append((begins, cells))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DataError([problem(f"{path}:{begins}", f"is not CSV: {error}")]) from error
    return rows
