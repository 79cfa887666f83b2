"""Names of what is kept under a name: a sweep, a stage, a trial's key. Each is one component of a path."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

#: Letters, digits, `_`, `.` and `-`, beginning with a letter or digit. Also the pattern in the JSON Schema.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
#: Longest name in characters. A file name has 255 bytes at most, and locks and temporary files add to the name.
LONGEST_NAME = 200
#: The rule in words, for a problem's `allowed`.
NAME_RULE = f"letters, digits, _ . and -, beginning with a letter or digit, {LONGEST_NAME} at most"

#: Longest part of a hostile name that a message repeats, in characters.
_SHOWN = 80


def is_name(text: str) -> bool:
    """Return whether `text` follows NAME_RULE, so that it names a folder and leads nowhere else."""
    # `$` alone would let a final newline pass.
    return len(text) <= LONGEST_NAME and re.match(NAME_PATTERN, text) is not None and not text.endswith("\n")


def stays_below(text: str) -> bool:
    """Return whether `text`, joined to a folder, names something in it, not the folder or what is outside."""
    parts = PurePosixPath(text).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts and "\0" not in text


def quoted(text: str) -> str:
    """Return a name as messages show it: in quotes, with what cannot be printed escaped, cut where it is long."""
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
