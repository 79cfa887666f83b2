"""Read folders of videos: a folder for each class, or split folders (train, val, test) of class folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdtune.clips.layout.groups import GROUPS
from kdtune.clips.layout.listed import SUFFIXES as LISTS
from kdtune.clips.layout.lists import ucf101_group
from kdtune.clips.layout.names import alike, counted, problem, some, unusable
from kdtune.clips.layout.parts import part_of
from kdtune.clips.layout.pictured import note_frames
from kdtune.clips.layout.rows import TEST_SHARE, Reading, Row
from kdtune.clips.layout.text import capped
from kdtune.clips.layout.walk import (
    SUFFIXES,
    Found,
    Identity,
    entries,
    folders_above,
    is_folder,
    leads_above,
    others_in_words,
    same_folder,
    scan,
)
from kdtune.errors import DataError, Problem
from kdtune.parse import parsing, printable

SPLIT_LAYOUT = "train, test and perhaps val, each with a folder for each class; or class folders alone"


@dataclass
class Folder:
    """A class folder: its split, and what is in it."""

    path: Path
    part: str  # "train", "val", "test"; "" where there are no split folders
    found: Found

    @property
    def name(self) -> str:
        """Name that messages show."""
        return printable(f"{self.path.parent.name}/{self.path.name}" if self.part else self.path.name)


def read_folders(root: Path, lists: Path, problems: list[Problem]) -> Reading:
    """Read the classes and videos below `root`. A folder of `lists` below it is no class.

    Adds what is wrong to `problems`. Raises DataError where `root` cannot be read.
    """
    with parsing(root, DataError):
        outside = folders_above(root)
    reading = Reading("class folders")
    tops = _folders_in(root, outside, reading, problems, lists)
    if any(part_of(path.name) for path in tops):
        folders = _split_folders(root, tops, outside, reading, problems)
    else:
        folders = [Folder(path, "", scan(path, outside)) for path in tops]
        _check_classes(root, folders, problems)
    for folder in folders:
        reading.others += folder.found.others
        problems += capped(folder.path, folder.found.problems)
    parts = {folder.part for folder in folders}
    folders = [folder for folder in folders if folder.found.videos]
    if again := [path.relative_to(root) for folder in folders for path in folder.found.again]:
        reading.notes.append(f"links to folders that were already read are skipped: {some(again)}")
    problems += _in_two_classes(folders)
    for folder in folders:
        split = "test" if folder.part == "val" and "test" not in parts else folder.part
        if folder.path in folder.found.frames:
            what = f"holds frames itself ({folder.found.frames[folder.path]} pictures), so its class is unknown"
            problems.append(problem(folder.path, what, "a folder for each class, with a folder of frames a video"))
            continue
        for path in folder.found.videos:
            video = path.relative_to(root).as_posix()
            reading.rows.append(Row(video, folder.path.name, split, ucf101_group(video)))
    if mixture := note_frames(root, [folder.found for folder in folders], reading):
        problems += mixture
        reading.rows.clear()
    if not parts & {"train", "val", "test"}:
        _note_cameras(root, folders, reading)
        reading.guesses.append(
            f"no lists and no test folder: {TEST_SHARE:.0%} of the groups, chosen by hash, are the test list"
        )
    problems += alike(root, {row.action for row in reading.rows})
    return reading


def _folders_in(
    folder: Path, outside: set[Identity], reading: Reading, problems: list[Problem], lists: Path | None = None
) -> list[Path]:
    """Return the folders in `folder`, without the folder of lists and links upwards. Note loose videos."""
    folders, loose = [], []
    for entry in entries(folder, problems):
        path, leads_to_folder = folder / entry.name, is_folder(entry, problems)
        if leads_to_folder and leads_above(path, outside):
            reading.notes.append(f"{path.name} is a link to a folder that holds the data set; it is skipped")
        elif leads_to_folder and (reason := unusable(entry.name)):
            problems.append(problem(path, reason))
        elif leads_to_folder and path.name != GROUPS and (lists is None or not same_folder(path, lists)):
            folders.append(path)
        elif leads_to_folder is False and path.suffix.lower() in SUFFIXES:
            loose.append(path)
    if loose:
        shown = some(path.name for path in loose)
        if folders:
            reading.notes.append(f"{counted(len(loose), 'video')} outside the class folders left out: {shown}")
        else:
            what = f"holds {counted(len(loose), 'video')}, but no class folders: {shown}"
            problems.append(problem(folder, what, "a folder for each class"))
    return folders


def _check_classes(root: Path, folders: list[Folder], problems: list[Problem]) -> None:
    """Refuse empty classes, one folder around all classes, and classes that hold split folders."""
    for folder in folders:
        if not folder.found.videos:
            problems.append(_empty(folder))
    filled = [folder for folder in folders if folder.found.videos]
    inner = [_inner(folder.path, folder.found.videos) for folder in filled]
    if not filled or not all(inner):
        return
    if all(part_of(name) for names in inner for name in names):
        seen = some(f"{folder.path.name}/{name}" for folder, names in zip(filled, inner, strict=True) for name in names)
        what = f"the class folders hold split folders ({seen})"
        problems.append(problem(root, what, "split folders above the classes: train/CLASS, test/CLASS"))
    elif len(filled) == 1:
        path, names = filled[0].path, inner[0]
        while len(names) == 1 and (deeper := _inner(path / names[0], filled[0].found.videos)):
            path, names = path / names[0], deeper
        what = f"holds one folder, {path.relative_to(root)}, whose folders hold the videos: {some(names)}"
        problems.append(problem(root, what, f"set data.root to {path} if these are the classes"))


def _inner(folder: Path, videos: list[Path]) -> list[str]:
    """Return the sub-folders that hold all videos of a folder; none where the folder itself holds some."""
    parts = [path.relative_to(folder).parts for path in videos]
    return [] if any(len(names) < 2 for names in parts) else sorted({names[0] for names in parts})


def _empty(folder: Folder) -> Problem:
    what = "the class is empty: no videos in it"
    if folder.found.others:
        what += f"; {others_in_words(folder.found.others)}"
    remedy = "files that end in .avi, .mp4, .mkv, .mov, .webm, …"
    if folder.found.others.keys() & set(LISTS):
        remedy += "; or set data.lists to it, if it holds lists of videos"
    return problem(folder.path, what, remedy)


def _split_folders(
    root: Path, tops: list[Path], outside: set[Identity], reading: Reading, problems: list[Problem]
) -> list[Folder]:
    """Return the class folders of all split folders. Report a mixture of layouts as a problem."""
    beside = [Folder(path, "", scan(path, outside)) for path in tops if not part_of(path.name)]
    classes = [folder.path.name for folder in beside if folder.found.videos]
    splits = [path for path in tops if part_of(path.name)]
    seen = some(path.name for path in splits)
    if classes:
        what = f"holds split folders ({seen}) beside other folders of videos ({some(classes)})"
        problems.append(problem(root, what, f"{SPLIT_LAYOUT}; rename a class that is named like a split"))
        return []
    problems += [found for folder in beside for found in folder.found.problems]
    if beside:
        reading.notes.append(f"folders without videos are skipped: {some(f.path.name for f in beside)}")
    parts = [part_of(path.name) for path in splits]
    if len(set(parts)) < len(parts):
        problems.append(problem(root, f"holds several folders for one split: {seen}", SPLIT_LAYOUT))
        return []
    if "train" not in parts:
        problems.append(problem(root, f"holds split folders ({seen}), but none for training", SPLIT_LAYOUT))
        return []
    if parts == ["train"]:
        what = f"holds only {splits[0].name}, and no test folder"
        remedy = f"set data.root to {splits[0]}; {TEST_SHARE:.0%} of its groups then become the test list"
        problems.append(problem(root, what, remedy))
        return []
    reading.layout = f"split folders ({seen})"
    if "val" in parts:
        name = splits[parts.index("val")].name
        if "test" not in parts:
            reading.guesses.append(
                f"no test folder: {name} is the test list; validation is carved from the training list"
            )
    folders = []
    for split, part in zip(splits, parts, strict=True):
        for path in _folders_in(split, outside, reading, problems):
            folder = Folder(path, part, scan(path, outside))
            if part_of(path.name):
                what = f"holds a folder that is named like a split ({folder.name})"
                problems.append(problem(root, what, f"{SPLIT_LAYOUT}; rename a class that is named like a split"))
            elif not folder.found.videos and part == "train":
                problems.append(_empty(folder))
            elif not folder.found.videos:
                reading.notes.append(f"no videos in {folder.name}")
            folders.append(folder)
    return folders


def _in_two_classes(folders: list[Folder]) -> list[Problem]:
    """Return a problem for each real folder that belongs, through links, to two classes or splits."""
    first: dict[Identity, Path] = {}
    problems = []
    for folder in folders:
        for identity, path in folder.found.folders.items():
            if identity in first:
                what = f"is the same folder as {first[identity]}: its videos would be counted twice"
                problems.append(problem(path, what))
            else:
                first[identity] = path
    return problems


def _note_cameras(root: Path, folders: list[Folder], reading: Reading) -> None:
    """Note classes that all hold folders of the same names: they may be no classes, as in (day1, day2)/(run, sit)."""
    inner = [_inner(folder.path, folder.found.videos) for folder in folders]
    if len(inner) > 1 and len(inner[0]) > 1 and all(names == inner[0] for names in inner):
        names = some(inner[0])
        reading.guesses.append(f"each class holds the folders {names}: they are read as parts of it, not as classes")
