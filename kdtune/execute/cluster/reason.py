"""Explain in one line why Ray did not start, from its exception and its logs."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

#: The log of `head.py` in Ray's folder. Ray's own logs are below it.
LOG = "start.log"
#: Log files of Ray's processes, below its folder.
_LOGS = ("r/s[0-9]*/logs/gcs_server.*", "r/s[0-9]*/logs/raylet.*", LOG)
#: Matches a log line marked as an error (E), fatal (F) or critical (C); group 1 is its text. Stack traces begin with
#: @, *** or PC.
_MARKED = re.compile(r"\[[^\]]*\b[ECF] [^\]]*\]\s*+(?:\([^)]*\)\s*+)?+(?:\S+:\d+:\s*+)?+(?!@|\*\*\*|PC:)(.+)")
#: Matches Ray's advice after the sentence that says what happened.
_HINTS = re.compile(r"\. +(?:Last \d|Please check|This could|Last connection).*", re.DOTALL)
#: Maximum characters shown of each part.
_SHOWN = 240


def reason(error: str, folder: Path) -> str:
    """Return why a start in `folder` failed with `error`, the text of an exception."""
    said = _HINTS.sub("", error).removeprefix("Exception: ").replace(f"{folder}/", "")
    logged = last_error(folder)
    return "; Ray's log: ".join(_short(text) for text in (said, logged) if text)


def last_error(folder: Path) -> str:
    """Return the last error in Ray's logs below `folder`, or an empty string."""
    found = ""
    for file in sorted((file for pattern in _LOGS for file in folder.glob(pattern)), key=_changed):
        with suppress(OSError):
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                if marked := _MARKED.match(line):
                    # C++ prints an uncaught exception as its type, its what() and its stack.
                    found = re.sub(r"^Unhandled exception: \S+ what\(\): (.*?)(?: /.*)?$", r"\1", marked[1].strip())
    return found


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}…"


def _changed(file: Path) -> float:
    with suppress(OSError):
        return file.stat().st_mtime
    return 0.0
