"""Print for people. Standard output is for results, standard error for messages; a terminal's lines wrap at words."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TextIO

#: Width of the labels before the lines of `plan`.
LABEL = 13


def say(text: str) -> None:
    """Print a line to standard error and flush it."""
    print(text, file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print lines to standard output and flush them."""
    print(wrapped(text, line_width(sys.stdout)), flush=True)


def line_width(stream: TextIO) -> int | None:
    """Return the characters in a line of the terminal that `stream` writes to; None for a file or a pipe."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def wrapped(text: str, width: int | None) -> str:
    """Return `text` with each line that is longer than `width` broken at words, and what follows indented."""
    if width is None:
        return text
    return "\n".join(part for line in text.split("\n") for part in _broken(line, width))


def _broken(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    lead = len(line) - len(line.lstrip())
    labelled = not lead and line[LABEL - 1 : LABEL] == " " and line[LABEL : LABEL + 1] not in ("", " ")
    further = " " * min(LABEL if labelled and "  " in line[:LABEL] else lead + 2, width // 2)
    return textwrap.wrap(line, width, subsequent_indent=further, break_long_words=False, break_on_hyphens=False) or [
        line
    ]
