"""Turn a library's errors on a file into problems with their places.

Code that reads a file that a user names or may have edited does so within `parsing`. All such files are then refused in
the same words, with the path and, where the library reports it, the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdtune.errors import KdtuneError, Problem, UserError

#: A JSON object as it is read from a file or written to one.
JsonObject = dict[str, Any]

#: Maximum characters of a reason: a library may quote the whole file.
LONGEST = 200


@contextmanager
def parsing(path: Path | str, refuse: type[UserError]) -> Iterator[None]:
    """Raise `refuse`, with the file as the place, for any error in reading or parsing `path`.

    Args:
        path: the file; shown as the place.
        refuse: the error to raise.

    kdtune's own errors, MemoryError and interrupts pass through.
    """
    try:
        yield
    except (KdtuneError, MemoryError):
        raise
    except Exception as error:
        raise refuse([problem_of(path, error)]) from error


def problem_of(path: Path | str, error: Exception, kind: str = "") -> Problem:
    """Return the problem behind `error`, which was raised while `path` was read or parsed.

    `kind` is the expected format, such as "YAML"; the message then says that the file is not of that format.
    """
    where = printable(str(path))
    if isinstance(error, UnicodeDecodeError):
        line = error.object[: error.start].count(b"\n") + 1
        return Problem(f"{where}:{line}", f"is not UTF-8 text (byte 0x{error.object[error.start]:02x})")
    if isinstance(error, OSError) and error.strerror:
        return Problem(where, f"cannot be read: {error.strerror}")
    number = _line(error)
    place = f"{where}:{number}" if number else where
    if isinstance(error, RecursionError):
        return Problem(place, "cannot be read: it nests too deeply")
    reason = first_line(error)
    return Problem(place, f"is not {kind}: {reason}" if kind else f"cannot be read: {reason}")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, shortened to a readable length; its type where it has no text."""
    text = getattr(error, "problem", None) or str(error)  # yaml's marked errors hold the reason without the excerpt
    line = next((line for line in str(text).strip().splitlines() if line.strip()), type(error).__name__)
    return cut(printable(line))


def shortened(value: object) -> str:
    """Return a value as messages show it: its `repr`, shortened to a readable length."""
    return cut(repr(value))


def cut(text: str, longest: int = LONGEST) -> str:
    """Return `text`, shortened to `longest` characters where it is longer."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def printable(text: str) -> str:
    """Return `text` with unprintable characters (control characters, lone surrogates) escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def _line(error: Exception) -> int | None:
    """Return the line that an error of yaml, json or pandas names; None where it names none."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return mark.line + 1
    if isinstance(number := getattr(error, "lineno", None), int):
        return number
    named = re.search(r"\bin line (\d+)\b", str(error))  # pandas' C parser
    return int(named[1]) if named else None
