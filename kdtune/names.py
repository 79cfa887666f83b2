"""Rules for names of sweeps, stages and trial keys. Each name is one component of a path."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

#: Letters, digits, `_`, `.` and `-`, beginning with a letter or digit. The JSON Schema uses the same pattern.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
#: Maximum characters of a name. A file name may have 255 bytes, and locks and temporary files extend the name.
LONGEST_NAME = 200

#: Maximum characters of a hostile name that a message repeats.
_SHOWN = 80


def is_name(text: str) -> bool:
    """Return whether `text` is a valid name, so that it names a folder and cannot lead elsewhere."""
    # `$` alone would let a final newline pass.
    return len(text) <= LONGEST_NAME and re.match(NAME_PATTERN, text) is not None and not text.endswith("\n")


def stays_below(text: str) -> bool:
    """Return whether `text`, joined to a folder, leads to something inside it, not to the folder itself or outside."""
    parts = PurePosixPath(text).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts and "\0" not in text


def quoted(text: str) -> str:
    """Return a name as messages show it: quoted, with unprintable characters escaped, shortened where it is long."""
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
