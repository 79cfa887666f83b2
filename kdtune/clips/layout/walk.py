"""Walk through folders of videos: find the videos, skip junk, report what cannot be read."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from kdtune.clips.layout.names import counted, problem, unusable
from kdtune.clips.video.sequence import is_picture, sequence_of
from kdtune.errors import Problem
from kdtune.parse import printable

# fmt: off
SUFFIXES = frozenset({
    ".avi", ".mp4", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".mts", ".m2ts", ".m2t", ".ts",
    ".3gp", ".3g2", ".ogv", ".ogm", ".vob", ".asf", ".mxf", ".divx", ".dv", ".f4v", ".m2v", ".mpe", ".mpv", ".rm",
    ".rmvb", ".y4m", ".qt",
})
#: Files of operating systems, case-folded. Names that begin with a dot are junk, too.
JUNK = frozenset({
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "#recycle", "$recycle.bin",
    "system volume information", "lost+found",
})
# fmt: on

#: Least number of numbered pictures that make a folder a video.
LEAST_FRAMES = 2

#: Device and inode, which identify a folder behind any link.
Identity = tuple[int, int]


@dataclass
class Found:
    """The content of a folder and its sub-folders."""

    videos: list[Path] = field(default_factory=list)
    """Video files and folders of frames, sorted."""
    frames: dict[Path, int] = field(default_factory=dict)
    """Folder of frames → number of its frames."""
    others: Counter[str] = field(default_factory=Counter)
    """Suffix, in lower case, → number of files that are neither videos nor frames."""
    pictured: list[Path] = field(default_factory=list)
    """Folders with pictures that are not read as frames."""
    folders: dict[Identity, Path] = field(default_factory=dict)
    """The real folders that were read."""
    again: list[Path] = field(default_factory=list)
    """Skipped links: to folders that were already read, or that hold the data set."""
    problems: list[Problem] = field(default_factory=list)


def is_junk(name: str) -> bool:
    """Return whether a file or folder called `name` is always skipped."""
    return name.startswith(".") or name.casefold() in JUNK


def folders_above(root: Path) -> set[Identity]:
    """Return the identities of `root` and of all its parent folders. Raises OSError."""
    real = Path(os.path.realpath(root))
    return {_identity(os.stat(folder)) for folder in (real, *real.parents)}


def leads_above(folder: Path, outside: set[Identity]) -> bool:
    """Return whether a folder, or the target of a link, is one that holds the data set."""
    try:
        return _identity(os.stat(folder)) in outside
    except OSError:
        return False


def same_folder(one: Path, other: Path) -> bool:
    """Return whether two paths lead to the same folder or file. A path that leads nowhere equals no other."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def entries(folder: Path, problems: list[Problem]) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, sorted by name, without junk; none, and a problem, where it is unreadable."""
    try:
        with os.scandir(folder) as found:
            return sorted((entry for entry in found if not is_junk(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        problems.append(problem(folder, f"cannot be read: {error.strerror}"))
        return []


def is_folder(entry: os.DirEntry[str], problems: list[Problem]) -> bool | None:
    """Return whether an entry is a folder or a link to one; None, and a problem, where it leads nowhere."""
    try:
        if entry.is_dir():
            return True
        if entry.is_symlink():
            os.stat(entry.path)
        return False
    except FileNotFoundError:
        problems.append(problem(entry.path, "is a link that leads nowhere"))
    except OSError as error:
        problems.append(problem(entry.path, f"cannot be read: {error.strerror}"))
    return None


def scan(folder: Path, outside: set[Identity]) -> Found:
    """Read a folder and its sub-folders. Links are followed, but no real folder is read twice.

    Folders are read before links, so that a link never changes a video's name. Links to the folders in `outside`, which
    hold the data set, are skipped.
    """
    found = Found()
    folders, links = [folder], list[Path]()
    while folders or links:
        current = folders.pop() if folders else links.pop(0)
        try:
            identity = _identity(os.stat(current))
        except OSError as error:
            found.problems.append(problem(current, f"cannot be read: {error.strerror}"))
            continue
        if identity in found.folders or identity in outside:
            found.again.append(current)
            continue
        found.folders[identity] = current
        pictures, holds_more = list[str](), False
        for entry in entries(current, found.problems):
            path, suffix = current / entry.name, os.path.splitext(entry.name)[1].lower()
            leads_to_folder = is_folder(entry, found.problems)
            if leads_to_folder is None:
                continue
            is_video = not leads_to_folder and suffix in SUFFIXES and entry.is_file()
            if (leads_to_folder or is_video) and (reason := unusable(entry.name)):
                found.problems.append(problem(path, reason))
            elif leads_to_folder:
                holds_more = True
                (links if entry.is_symlink() else folders).append(path)
            elif is_video:
                holds_more = True
                found.videos.append(path)
            elif is_picture(entry.name) and entry.is_file():
                pictures.append(entry.name)
            else:
                found.others[(suffix or "no suffix") if entry.is_file() else "special file"] += 1
        _add_pictures(found, current, pictures, holds_more)
    found.videos.sort()
    return found


def scan_below(root: Path, lists: Path) -> Found:
    """Read a whole data set: `scan` each folder in `root` but `lists`, and take the videos in `root` itself.

    Raises OSError where `root` cannot be read.
    """
    all_found, outside = Found(), folders_above(root)
    for entry in entries(root, all_found.problems):
        path, leads_to_folder = root / entry.name, is_folder(entry, all_found.problems)
        if leads_to_folder and not same_folder(path, lists):
            found = scan(path, outside)
            all_found.videos += found.videos
            all_found.frames |= found.frames
            all_found.others += found.others
            all_found.pictured += found.pictured
            all_found.problems += found.problems
        elif leads_to_folder is False and path.suffix.lower() in SUFFIXES:
            all_found.videos.append(path)
    return all_found


def _add_pictures(found: Found, folder: Path, pictures: list[str], holds_more: bool) -> None:
    """Add a folder's pictures: as a video where they are numbered frames and the folder holds no other videos."""
    sequence = sequence_of(pictures)
    if len(sequence.names) >= LEAST_FRAMES and not holds_more:
        found.videos.append(folder)
        found.frames[folder] = len(sequence.names)
        found.problems += [problem(folder / name, reason) for name in pictures if (reason := unusable(name))]
    elif pictures:
        found.pictured.append(folder)
        found.others.update(os.path.splitext(name)[1].lower() for name in pictures)


def others_in_words(others: Counter[str]) -> str:
    """Return "3 files are not videos: .txt 2, .jpg 1", the most frequent suffix first."""
    total = sum(others.values())
    kinds = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{printable(kind)} {number:,}" for kind, number in kinds[:6]) + (", …" if len(kinds) > 6 else "")
    return f"{counted(total, 'file')} {'is not a video' if total == 1 else 'are not videos'}: {shown}"


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino
