"""Read UCF101's and HMDB51's official lists, and lists in their formats."""

from __future__ import annotations

import re
from pathlib import Path

from kdtune.clips.layout.names import Names, counted, fold, problem, some, unusable
from kdtune.clips.layout.rows import Row
from kdtune.clips.layout.text import capped, lines, names_in
from kdtune.errors import Problem

#: HMDB51's codes for the use of a video; 0 is unused.
HMDB51_PARTS = {"1": "train", "2": "test"}


def ucf101_rows(lists: Path, split: int, names: Names, problems: list[Problem]) -> list[Row]:
    """Read classInd.txt, trainlist0N.txt and testlist0N.txt; add what is wrong to `problems`.

    A video's group is the gNN of its name alone: the official splits follow that number across classes.
    """
    labels = _class_labels(lists / "classInd.txt", problems)
    actions = {fold(action): action for action in labels}
    places = Places()
    rows = []
    for part in ("train", "test"):
        path, found = lists / f"{part}list{split:02d}.txt", list[Problem]()
        for number, line in lines(path, problems):
            where = f"{path}:{number}"
            named = re.fullmatch(r"(.+?\.\w+)(?:\s+(\d{1,9}))?", line)
            try:
                video = names.spelled(named[1] if named else line)
            except ValueError as error:
                found.append(problem(where, f"{line} {error}"))
                continue
            action = actions.get(fold(video.split("/")[0]))
            if named is None or "/" not in video:
                what = f"must be class/video.ext and optionally its label, but got {line!r}"
                found.append(problem(where, what))
            elif action is None:
                found.append(problem(where, f"class {video.split('/')[0]} is not in classInd.txt"))
            elif named[2] and int(named[2]) != labels[action] + 1:
                what = f"label {named[2]}, but classInd.txt has {labels[action] + 1} {action}"
                found.append(problem(where, what))
            else:
                places.add(video, part, where)
                rows.append(Row(video, action, part, ucf101_group(video), labels[action]))
        problems += capped(path, found)
    problems += places.problems(lists)
    return rows


def ucf101_group(video: str) -> str:
    """Return the "g08" of v_X_g08_c01.avi. Any other video is its own group: return its path without the suffix."""
    return named_group(video) or Path(video).with_suffix("").as_posix()


def named_group(video: str) -> str:
    """Return the "g08" of v_X_g08_c01.avi; "" for any other name."""
    found = re.search(r"_(g\d+)_c\d+$", Path(video).stem)
    return found[1] if found else ""


def hmdb51_rows(lists: Path, split: int, names: Names, problems: list[Problem]) -> list[Row]:
    """Read <class>_test_split<N>.txt of each class, in which 1 is train, 2 is test and 0 is unused.

    Adds what is wrong to `problems`.
    """
    ending = f"_test_split{split}.txt"
    files = [lists / name for name in names_in(lists, problems) if name.endswith(ending)]
    if not files:
        problems.append(problem(lists.absolute(), f"no lists <class>{ending} here; set data.lists to their folder"))
    places = Places()
    rows = []
    for label, path in enumerate(files):
        action, found = path.name.removesuffix(ending), list[Problem]()
        if reason := unusable(action):
            problems.append(problem(path, reason))
            continue
        for number, line in lines(path, problems):
            where = f"{path}:{number}"
            named = re.fullmatch(r"(.+?)\s+([012])", line)
            if named is None:
                found.append(problem(where, f"must be a name and 0, 1 or 2, but got {line!r}"))
                continue
            try:
                video = _below_class(named[1], action, names)
            except ValueError as error:
                found.append(problem(where, f"{named[1]} {error}"))
                continue
            if named[2] in HMDB51_PARTS:
                part = HMDB51_PARTS[named[2]]
                places.add(video, part, where)
                rows.append(Row(video, action, part, hmdb51_group(video.split("/", 1)[1], action), label))
        problems += capped(path, found)
    problems += places.problems(lists)
    return rows


def hmdb51_group(name: str, action: str) -> str:
    """Return the source film: the part of the name before the class.

    Case, punctuation and trailing part numbers are dropped, so that the parts of a film are one group
    (Return_of_the_King_12 and RETURN_OF_THE_KING: returnoftheking). Numbers of three and more digits are years and
    stay. Taking two films for one (Oceans11, Oceans12) does no harm; taking one film for two would leak from training
    into validation.
    """
    stem = Path(name).stem
    film = stem.rpartition(f"_{action}_")[0] or stem
    plain = re.sub(r"[\W_]+", " ", film.casefold()).strip()
    part = r"(?:\s*\b(?:part|teil|nr))?\s*(?<!\d)\d{1,2}(?: of)?$"
    while (shorter := re.sub(part, "", plain)) != plain and shorter:
        plain = shorter
    return plain.replace(" ", "")


def _below_class(text: str, action: str, names: Names) -> str:
    """Return the video that a line of HMDB51's list of `action` names: a file name, or a path in that class's folder.

    Raises ValueError with the reason for any other path.
    """
    if "/" not in text and "\\" not in text:
        return names.spelled(f"{action}/{text}")
    video = names.spelled(text)
    if "/" not in video:
        return f"{action}/{video}"
    if fold(video.split("/")[0]) != fold(action):
        raise ValueError(f"is not of the class {action}")
    return video


def _class_labels(path: Path, problems: list[Problem]) -> dict[str, int]:
    """Read classInd.txt, which counts from 1; labels count from 0."""
    labels: dict[str, int] = {}
    first: dict[str, int] = {}
    found = []
    for number, line in lines(path, problems):
        where = f"{path}:{number}"
        named = re.fullmatch(r"(\d{1,9})\s+(.+)", line)
        if named is None:
            found.append(problem(where, f"must be a number and a class, but got {line!r}"))
        elif reason := unusable(named[2]):
            found.append(problem(where, f"{named[2]} {reason}"))
        elif fold(named[2]) in first:
            what = f"class {named[2]} is also in line {first[fold(named[2])]}, perhaps in another case"
            found.append(problem(where, what))
        else:
            first[fold(named[2])] = number
            labels[named[2]] = int(named[1]) - 1
    if not found and sorted(labels.values()) != list(range(len(labels))):
        found.append(problem(path, "must number its classes 1, 2, 3, … without gaps"))
    problems += capped(path, found)
    return labels


class Places:
    """The places at which each video is listed, with their splits."""

    def __init__(self) -> None:
        self._places: dict[str, list[tuple[str, str]]] = {}

    def add(self, video: str, part: str, where: str) -> None:
        self._places.setdefault(video, []).append((part, where))

    def problems(self, lists: Path) -> list[Problem]:
        """Return the problems of videos that are listed more than once: in two splits, or twice in one."""
        found = []
        several = {video: places for video, places in self._places.items() if len(places) > 1}
        both = {video for video, places in several.items() if len({part for part, _ in places}) > 1}
        for videos, where in (
            (both, "in the lists of two splits"),
            (several.keys() - both, "listed twice"),
        ):
            if videos:
                names = [f"{video} ({_lines(several[video])})" for video in sorted(videos)]
                verb = "is" if len(videos) == 1 else "are"
                what = f"{counted(len(videos), 'video')} {verb} {where}: {some(names)}"
                found.append(problem(lists, what))
        return found


def _lines(places: list[tuple[str, str]]) -> str:
    """Return list name and line number of the first two places."""
    return " and ".join(where.rpartition("/")[2] for _, where in places[:2])
