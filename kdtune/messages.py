"""Lines for people. On a terminal they wrap at words; in a file or a pipe they stay as they are.

The library logs messages to the logger `kdtune`; processes that kdtune owns show them on standard error.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import textwrap
from contextlib import suppress
from typing import TextIO

#: Width of the labels before the lines of `plan` and at the end of a sweep.
LABEL = 13
#: Characters in a line of a terminal that does not say its width.
DEFAULT_WIDTH = 80
#: A word of a shell command, with what is quoted in it.
WORD = re.compile(r"""(?:'[^']*'|"[^"]*"|\\.|[^\s'"\\])+""")


def line_width(stream: TextIO) -> int | None:
    """Return the characters in a line of the terminal that `stream` writes to; None for a file or a pipe."""
    if not stream.isatty():
        return None
    asked = os.environ.get("COLUMNS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    with suppress(OSError, ValueError):  # a replacement of the stream has no descriptor
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_WIDTH
    return shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns


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


def command_lines(label: str, command: str, width: int | None) -> str:
    """Return a shell command after its label. Lines longer than `width` continue after a backslash, as a shell reads.

    >>> print(command_lines("Look at it:", "kdtune results lambda_tau --format csv", 44))
    Look at it:  kdtune results lambda_tau \\
                 --format csv
    """
    lines = [f"{label:{LABEL}}{command}"]
    if width is None or len(lines[0]) <= width:
        return lines[0]
    lines = [f"{label:{LABEL - 1}}"]
    for word in WORD.findall(command):
        if len(lines[-1]) + 1 + len(word) + len(" \\") > width and len(lines[-1]) >= LABEL:
            lines.append(" " * (LABEL - 1))
        lines[-1] += f" {word}"
    return " \\\n".join(lines)


class _StandardError(logging.Handler):
    """Writes to the current `sys.stderr`, which may be replaced at any time."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):  # standard error is closed
            print(wrapped(self.format(record), line_width(sys.stderr)), file=sys.stderr, flush=True)


def show_messages() -> None:
    """Show progress and warnings as lines `kdtune: …` on standard error, once each.

    Only commands and workers call this. A program that imports kdtune configures logging itself.
    """
    logger = logging.getLogger("kdtune")
    if not any(isinstance(handler, _StandardError) for handler in logger.handlers):
        handler = _StandardError()
        handler.setFormatter(logging.Formatter("kdtune: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
