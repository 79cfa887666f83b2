"""The classes that lists name: by name, by number with a file of names, or by the videos' folders."""

from __future__ import annotations

import re
from pathlib import Path

from kdtune.clips.layout.columns import Entry
from kdtune.clips.layout.names import alike, fold, problem, some, unusable
from kdtune.clips.layout.text import capped, names_in, read_text
from kdtune.errors import DataError, Problem

#: Files with one class name in a line: classes.txt, label_map.txt, kinetics_400_labels.csv, …
CLASS_NAMES = re.compile(
    r"(.*[-_ ])?(class(es|[-_ ]?(ind|names?|list|labels?))?|labels?|label[-_ ]?map|categories|actions)"
    r"\.(txt|csv|names)",
    re.IGNORECASE,
)
NUMBERED = re.compile(r"(?P<number>\d{1,9})\s*[,;:\s]\s*(?P<name>\S.*)")
NAMED = re.compile(r"(?P<name>\S.*?)\s*[,;:\t]\s*(?P<number>\d{1,9})")


def is_class_names(name: str) -> bool:
    """Return whether a file of this name lists class names rather than videos, unless it has columns for videos."""
    return CLASS_NAMES.fullmatch(name) is not None and not name.lower().endswith(".csv")


class ClassNames:
    """Name and label of each class that the entries of lists name."""

    def __init__(self, placed: list[tuple[Entry, str]], lists: Path, problems: list[Problem]) -> None:
        """Take the entries with their videos. Adds what is wrong to `problems`."""
        self.guesses: list[str] = []
        self.files: set[str] = set()
        """Names of the files of class names that were read."""
        self._labels: dict[str, int] | None = None
        """Number of each class, where the lists number them."""
        self._names: dict[str, str] = {}
        """Name of each class, by its label as the lists write it."""
        labels = {entry.label for entry, _ in placed if entry.label}
        numbers = {label for label in labels if label.isdecimal()}
        found = [
            problem(entry.where, f"class {entry.label} {reason}")
            for entry, _ in placed
            if (reason := unusable(entry.label))
        ]
        if not labels:
            self.guesses += ["the lists have no labels: the folder of a video is its class"] if placed else []
        elif numbers == labels:
            self._number(placed, labels, lists, found)
        elif numbers:
            one = next(entry for entry, _ in placed if entry.label.isdecimal())
            other = next(entry for entry, _ in placed if entry.label and not entry.label.isdecimal())
            what = f"labels are names and numbers: {other.label} in {Path(other.where).name}, {one.label} here"
            found.append(problem(one.where, what, "all names, or all numbers"))
        else:
            found += alike(lists, labels)
        for entry, video in placed:
            if not entry.label and (labels or "/" not in video):
                found.append(problem(entry.where, f"has no label for {video}"))
        problems += capped(lists, found)

    def of(self, entry: Entry, video: str) -> tuple[str, int | None]:
        """Return the name of the entry's class, and its label if the lists number the classes."""
        if not entry.label:
            return (video.split("/")[-2] if "/" in video else "", None)
        label = None if self._labels is None else self._labels[_plain(entry.label)]
        return self._names.get(_plain(entry.label), entry.label), label

    def _number(self, placed: list[tuple[Entry, str]], labels: set[str], lists: Path, problems: list[Problem]) -> None:
        """Set the names of numbered classes: from a file of names, else from the videos' folders."""
        used = sorted({_plain(label) for label in labels}, key=lambda label: (len(label), label))
        self._labels = {label: place for place, label in enumerate(used)}
        if used not in ([str(k) for k in range(len(used))], [str(k) for k in range(1, len(used) + 1)]):
            self.guesses.append(f"the labels {some(used)} are counted as 0 to {len(used) - 1}")
        folder = lists.parent if lists.is_file() else lists
        files = [name for name in names_in(folder, []) if CLASS_NAMES.fullmatch(name)]
        files = [name for name in files if (folder / name) not in {Path(e.where.rpartition(":")[0]) for e, _ in placed}]
        if len(files) > 1:
            problems.append(problem(folder, f"holds several files of class names: {some(files)}", "one of them"))
        elif files:
            self._read_names(folder / files[0], used, problems)
            return
        self._name_by_folders(placed)

    def _read_names(self, path: Path, used: list[str], problems: list[Problem]) -> None:
        try:
            names = _names_of(path, used)
        except DataError as error:
            problems += error.problems
            return
        unknown = [label for label in used if label not in names]
        if unknown:
            what = f"names {len(names)} classes, but the lists have the labels {some(unknown)}, too"
            problems.append(problem(path, what))
        self._names = {label: names[label] for label in used if label in names}
        problems += [problem(path, f"{name} {reason}") for name in self._names.values() if (reason := unusable(name))]
        problems += alike(path, self._names.values())
        self.files.add(path.name)
        self.guesses.append(f"class names are those of {path.name}")

    def _name_by_folders(self, placed: list[tuple[Entry, str]]) -> None:
        """Name classes like the folders of their videos, if each class has one folder name and no two the same."""
        folders: dict[str, set[str]] = {}
        for entry, video in placed:
            if entry.label:
                folders.setdefault(_plain(entry.label), set()).add(video.split("/")[-2] if "/" in video else "")
        names = {label: next(iter(found)) for label, found in folders.items() if len(found) == 1}
        distinct = {fold(name) for name in names.values() if name}
        if len(distinct) == len(folders):
            self._names = names
            self.guesses.append("the lists number the classes; their names are those of the videos' folders")
        else:
            self.guesses.append("the lists number the classes, and nothing names them: their names are the numbers")


def _plain(label: str) -> str:
    """Return a number without leading zeros, and any other label as it is."""
    return str(int(label)) if label.isdecimal() and len(label) < 10 else label


def _names_of(path: Path, used: list[str]) -> dict[str, str]:
    """Return label → name from a file with a name in each line, with or without its number. Raises DataError."""
    lines = [line.strip() for line in read_text(path).split("\n") if line.strip()]
    if lines and re.fullmatch(r"(id|class_id|label|index)\s*[,;\t]\s*(name|class|label)", lines[0], re.IGNORECASE):
        lines = lines[1:]
    for pattern in (NUMBERED, NAMED):
        found = [pattern.fullmatch(line) for line in lines]
        pairs = [(str(int(match["number"])), match["name"].strip("\"'")) for match in found if match is not None]
        if len(pairs) == len(lines) and len(dict(pairs)) == len(lines):
            named = dict(pairs)
            # mmaction2 counts labels from 0, but UCF101's classInd.txt counts from 1.
            if "0" in used and set(named) == {str(number) for number in range(1, len(lines) + 1)}:
                return {str(int(number) - 1): name for number, name in pairs}
            return named
    first = 1 if "0" not in used and str(len(lines)) in used else 0
    return {str(number): line.strip("\"'") for number, line in enumerate(lines, first)}
