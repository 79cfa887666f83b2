"""Read text files as people save them: UTF-8, or UTF-16 or 32 with a byte order mark; any line ends and white space."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable
from pathlib import Path

from kdtune.clips.layout.names import SHOWN, counted, kind_of, problem
from kdtune.errors import DataError, Problem
from kdtune.parse import parsing, problem_of

#: Byte order marks. UTF-32 comes first: its little-endian mark begins with UTF-16's.
MARKS = [
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
]


def read_text(path: Path) -> str:
    """Return the text of a list, with all line ends as newlines.

    Raises DataError where `path` is no file, cannot be read or is not text (with the line).
    """
    with parsing(path, DataError):
        if (kind := kind_of(path)) != "file":
            what = "is a folder; it must be a file" if kind == "folder" else "is not a file"
            raise DataError([problem(path, what)])
        raw = path.read_bytes()
    encoding = next((encoding for mark, encoding in MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding in ("utf-8", "utf-8-sig"):
            raise DataError([problem_of(path, error)]) from error
        what = f"begins with the byte order mark of {encoding.upper()}, but is not such text; save it as UTF-8"
        raise DataError([problem(path, what)]) from error
    text = re.sub(r"\r\n?", "\n", text)
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError([problem(f"{path}:{line}", "holds a NUL character; save it as UTF-8 text")])
    return text


def lines(path: Path, problems: list[Problem]) -> list[tuple[int, str]]:
    """Return number (from 1) and text of all lines that are not empty; none, and a problem, for an unreadable list."""
    try:
        with parsing(path, DataError):
            if not kind_of(path):
                where = path.absolute()
                raise DataError([problem(where, "this list is missing; set data.lists to the folder that has it")])
        text = read_text(path)
    except DataError as error:
        problems += error.problems
        return []
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def names_in(folder: Path, problems: list[Problem]) -> list[str]:
    """Return the names in a folder, sorted. Return none where it does not exist or, with a problem, is unreadable."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        problems.append(problem_of(folder, error))
        return []


def capped(path: Path, found: Iterable[Problem]) -> list[Problem]:
    """Return the first problems of a list and the number of the others: one cause may spoil every line."""
    found = list(found)
    if len(found) <= SHOWN + 1:
        return found
    more = problem(path, f"{counted(len(found) - SHOWN, 'more problem')} of this or another kind")
    return [*found[:SHOWN], more]
