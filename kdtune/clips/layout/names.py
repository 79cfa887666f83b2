"""Handle names of videos: check them, normalise their spelling in lists, and find their files.

A *video* is a path below the data set's root, with slashes, as the lists spell it. Lists and disks disagree over case
and over Unicode's normal form (macOS decomposes accents), so names are compared by their `fold`.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from kdtune.errors import Problem
from kdtune.parse import printable

#: Maximum number of names or problems of one kind that a message lists.
SHOWN = 5


def fold(name: str) -> str:
    """Return a form that is equal for names that differ only in case or Unicode normal form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def unusable(name: str) -> str:
    """Return why `name` cannot name a video, class or group; empty where it can."""
    kinds = {unicodedata.category(character) for character in name} if not name.isprintable() else set()
    if "Cs" in kinds:
        return "is a name that is not UTF-8; rename it"
    if "Cc" in kinds:
        return "is a name with a control character; rename it"
    return ""


def some(names: Iterable[object], shown: int = SHOWN) -> str:
    """Return the first `shown` of `names` in one printable line."""
    texts = [printable(str(name)) for name in names]
    return ", ".join(texts[:shown]) + (", …" if len(texts) > shown else "")


def problem(where: object, what: str, allowed: object = "") -> Problem:
    """Return a problem whose texts are printable, even if they quote hostile names."""
    return Problem(printable(str(where)), printable(what), printable(str(allowed)))


def counted(number: int, what: str) -> str:
    """Return "1 video" or "2 videos"."""
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}es" if what.endswith("ss") else f"{what}s"
    return f"{number:,} {what if number == 1 else plural}"


def kind_of(path: Path) -> str:
    """Return "file", "folder", "other" (a pipe, a device) or "" where nothing exists. Follows links.

    Raises OSError where that cannot be determined, as in a folder without search permission.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        return ""
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def alike(where: object, classes: Iterable[str]) -> list[Problem]:
    """Return a problem if names of classes are equal, or differ only in case or Unicode normal form."""
    same: dict[str, list[str]] = {}
    for name in sorted(classes):
        same.setdefault(fold(name), []).append(name)
    pairs = [" and ".join(names) for names in same.values() if len(names) > 1]
    return [problem(where, f"holds classes whose names differ only in case or accents: {some(pairs)}")] if pairs else []


class Names:
    """The names of one root's videos."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[Path, dict[str, str]] = {}

    @cached_property
    def _bases(self) -> list[str]:
        """Prefixes of absolute paths below the root."""
        return [f"{str(base).rstrip('/')}/" for base in (self.root.absolute(), os.path.realpath(self.root))]

    def spelled(self, text: str) -> str:
        """Return the video that a list means by `text`.

        Accepts backslashes, `./`, doubled slashes and absolute paths below the root. Raises ValueError with the reason
        for any other path, and for a name that cannot be stored.
        """
        path = text.replace("\\", "/")
        if re.match(r"[A-Za-z]:/", path):
            raise ValueError("is a path of another machine; paths must be below data.root")
        if path.startswith("/"):
            base = next((base for base in self._bases if path.startswith(base)), None)
            if base is None:
                raise ValueError(f"is not below data.root ({self.root.absolute()})")
            path = path[len(base) :]
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise ValueError("leads upwards (..); paths must be below data.root")
        if reason := unusable(path):
            raise ValueError(reason)
        return "/".join(parts)

    def path(self, video: str) -> Path:
        """Return the file of `video`, even if its path differs from the disk in case or Unicode normal form.

        A path that does not exist is returned as it was spelled. Raises OSError where a folder cannot be read.
        """
        path = self.root / video
        if kind_of(path):
            return path
        found = self.root
        for part in Path(video).parts:
            name = self._names(found).get(fold(part))
            if name is None:
                return path
            found = found / (part if kind_of(found / part) else name)
        return found

    def _names(self, folder: Path) -> dict[str, str]:
        """Return fold → name for `folder`; of names with the same fold, the first."""
        if folder not in self._listed:
            names = sorted(os.listdir(folder), reverse=True) if kind_of(folder) == "folder" else []
            self._listed[folder] = {fold(name): name for name in names}
        return self._listed[folder]


def missing_videos(
    names: Names, videos: Iterable[str], kind: str = "file"
) -> tuple[list[str], dict[str, Path], list[Problem]]:
    """Look for each video, a "file" or a "folder" of frames. Return the missing, the others' paths, and what fails."""
    missing, paths, unread = [], dict[str, Path](), dict[str, Problem]()
    for video in videos:
        try:
            path = names.path(video)
            if kind_of(path) == kind:
                paths[video] = path
            else:
                missing.append(video)
        except OSError as error:
            where = printable(str(error.filename or names.root / video))
            unread.setdefault(where, problem(where, f"cannot be read: {error.strerror}"))
    return missing, paths, list(unread.values())
