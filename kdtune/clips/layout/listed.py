"""Read lists of paths and labels as Kinetics, mmaction2 and spreadsheets have them: one for each split, or one file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from kdtune.clips.layout.columns import Entry, Table, read_table
from kdtune.clips.layout.labels import ClassNames, is_class_names
from kdtune.clips.layout.lists import Places, ucf101_group
from kdtune.clips.layout.names import Names, counted, problem, some, unusable
from kdtune.clips.layout.parts import part_of_list
from kdtune.clips.layout.pictured import note_frames
from kdtune.clips.layout.resolve import VideoIndex
from kdtune.clips.layout.rows import TEST_SHARE, Reading, Row
from kdtune.clips.layout.text import capped
from kdtune.clips.layout.walk import scan_below
from kdtune.errors import DataError, Problem

#: Endings of lists.
SUFFIXES = (".csv", ".tsv", ".txt", ".lst")
#: Files beside lists that are none.
ABOUT = re.compile(r"(read ?me|licen[cs]e|groups|requirements|notes?\b).*", re.IGNORECASE)
WANTED = "a list with train in its name and one with val or test; or one list with a column split"


def find_lists(lists: Path, listed: Iterable[str], split: int, *, given: bool) -> tuple[dict[str, Path], list[Problem]]:
    """Return the lists among the files `listed` of a folder, or the file `lists` itself, by part; and what is wrong.

    The part is "" for the only list. Of lists for several official splits, those of `split` are taken. `given` says
    whether the user named the folder; otherwise, files that are not clearly lists are left alone.
    """
    if lists.is_file():
        return {"": lists}, []
    names = [name for name in listed if name.lower().endswith(SUFFIXES) and not ABOUT.fullmatch(name)]
    parts = {name: part_of_list(Path(name).stem) for name in names}
    by_part: dict[str, list[tuple[str, int | None]]] = {}
    for name, (part, number) in parts.items():
        if part:
            by_part.setdefault(part, []).append((name, number))
    if "train" not in by_part and not (given and by_part):
        return _single(lists, [name for name in names if not parts[name][0]], given=given)
    if any(number is not None for found in by_part.values() for _, number in found):
        by_part = {part: [pair for pair in found if pair[1] in (split, None)] for part, found in by_part.items()}
    problems = []
    for part, found in by_part.items():
        if len(found) > 1:
            what = f"holds several lists for {part}: {some(name for name, _ in found)}"
            problems.append(problem(lists, what, "one list for each split, in a folder that data.lists names"))
    if not by_part.get("train") or not (by_part.get("test") or by_part.get("val")):
        seen = some(name for name in names if parts[name][0])
        problems.append(problem(lists, f"needs lists for training and for val or test, but holds {seen}", WANTED))
    return {} if problems else {part: lists / found[0][0] for part, found in by_part.items() if found}, problems


def read_lists(found: dict[str, Path], lists: Path, root: Path, names: Names, problems: list[Problem]) -> Reading:
    """Read the lists that `find_lists` returned. Adds what is wrong to `problems`."""
    shown = some(path.name for path in found.values())
    reading = Reading(f"{'list' if len(found) == 1 else 'lists'} {shown}")
    entries: list[Entry] = []
    for part, path in found.items():
        try:
            entries += [replace(entry, split=part or entry.split) for entry in read_table(path).entries(problems)]
        except DataError as error:
            problems += error.problems
    try:
        seen = scan_below(root, lists)
    except OSError:
        return reading  # the root cannot be read, which is reported with it
    if mixture := note_frames(root, [seen], reading):
        problems += mixture
        return reading
    index = VideoIndex(root, seen, names)
    reading.others += seen.others
    placed = _placed(entries, index, lists, reading, problems)
    classes = ClassNames([(entry, video) for entry, video in placed], lists, problems)
    reading.guesses += classes.guesses
    reading.files |= {path.name for path in found.values()} | classes.files
    reading.grouped = bool(placed) and all(entry.group for entry, _ in placed)
    splits = _splits(lists, [entry for entry, _ in placed], reading, problems)
    for entry, video in placed:
        action, label = classes.of(entry, video)
        group = entry.group or ucf101_group(video)
        reading.rows.append(Row(video, action, splits[entry.split], group, label))
    used = {video for _, video in placed}
    if unlisted := [video for video in index.videos if video not in used]:
        what = "1 video is" if len(unlisted) == 1 else f"{len(unlisted):,} videos are"
        reading.notes.append(f"{what} in no list and left out: {some(unlisted)}")
    if seen.problems:
        what = f"{counted(len(seen.problems), 'path')} could not be searched for videos: {seen.problems[0]}"
        reading.notes.append(what)
    return reading


def _single(lists: Path, names: list[str], *, given: bool) -> tuple[dict[str, Path], list[Problem]]:
    """Return the only list of videos among `names`; none where there is no such file."""
    tables = dict[str, Table]()
    for name in names:
        if is_class_names(name):
            continue
        try:
            tables[name] = read_table(lists / name)
        except DataError:
            continue  # no list; it is noted as a file that is not read
    headed = [name for name, table in tables.items() if table.has_header and {"label", "split"} & table.columns.keys()]
    chosen = headed or (list(tables) if given else [])
    if len(chosen) > 1:
        what = f"holds several lists, and their names say no split: {some(chosen)}"
        return {}, [problem(lists, what, f"{WANTED}; or set data.lists to one of the files")]
    return {"": lists / chosen[0]} if chosen else {}, []


def _placed(
    entries: list[Entry], index: VideoIndex, lists: Path, reading: Reading, problems: list[Problem]
) -> list[tuple[Entry, str]]:
    """Return each entry with its video. Report videos listed twice, and folders with another number of frames."""
    placed, found, places = [], list[Problem](), Places()
    for entry in entries:
        try:
            video = index.find(entry.video, entry.label, entry.split)
        except ValueError as error:
            found.append(problem(entry.where, f"{entry.video} {error}"))
            continue
        frames = reading.frames.get(video)
        if frames is not None and entry.frames is not None and frames != entry.frames:
            what = f"lists {counted(entry.frames, 'frame')} of {video}, but the folder holds {frames:,}"
            found.append(problem(entry.where, what))
        if entry.group and (reason := unusable(entry.group)):
            found.append(problem(entry.where, f"group {entry.group} {reason}"))
        places.add(video, entry.split, entry.where)
        placed.append((entry, video))
    problems += capped(lists, found)
    problems += places.problems(lists)
    return placed


def _splits(lists: Path, entries: list[Entry], reading: Reading, problems: list[Problem]) -> dict[str, str]:
    """Return the split of the catalog for each split of the lists."""
    seen = {entry.split for entry in entries}
    if seen == {""}:
        share = f"{TEST_SHARE:.0%} of the groups, chosen by hash, are the test list"
        reading.guesses.append(f"the list names no splits: {share}")
    elif "" in seen:
        where = next(entry.where for entry in entries if not entry.split)
        problems.append(problem(where, "names no split, but other lines do", "train, val or test"))
    elif "train" in seen and seen == {"train"}:
        problems.append(problem(lists, "lists training videos only", WANTED))
    elif entries and "test" not in seen:
        reading.guesses.append("no test list: val is the test list; validation is carved from the training list")
        return {"train": "train", "val": "test"}
    return {"train": "train", "val": "val", "test": "test", "": ""}
