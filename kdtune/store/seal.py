"""A record's seal: a digest of its text, as its last entry, by which a change of any bit is noticed.

    {"epoch": 1, …, "record_sha256": "<SHA-256 of the text without this entry>"}

The seal is of the bytes as they were written, so a record that was formatted anew counts as changed. Records of earlier
versions have no seal, and are taken as they are.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from kdtune.errors import DamageError, Problem
from kdtune.parse import problem_of

log = logging.getLogger(__name__)

#: The key of the seal.
SEAL = "record_sha256"
#: What to do, for whoever reads of damage.
REMEDY = "see `kdtune store check`"

_TAIL = re.compile(rb',(\n |\s)"record_sha256": "([0-9a-f]{64})"(\n?)\}$')
Read = TypeVar("Read")
_noted: set[str] = set()


def sealed(text: str) -> str:
    """Return the JSON of an object with its seal; of an empty one as it is."""
    if text == "{}":
        return text
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    if text.endswith("\n}"):
        return f'{text[:-2]},\n "{SEAL}": "{sha256}"\n}}'
    return f'{text[:-1]}, "{SEAL}": "{sha256}"}}'


def opened(content: bytes, path: Path, line: int | None = None, needs: Iterable[str] = ()) -> dict[str, Any]:
    """Return the object that a record's bytes hold, without its seal.

    Raises DamageError where they are not what was written, are no object, or lack a key of `needs`.
    """
    where = str(path) if line is None else f"{path}:{line}"
    tail = _TAIL.search(content)
    if tail is not None:
        content = content[: tail.start()] + tail[3] + b"}"
        if hashlib.sha256(content).hexdigest().encode() != tail[2]:
            raise DamageError([Problem(where, f"is damaged: it does not match its checksum; {REMEDY}")])
    try:
        # No key stands twice in what was written; only what has no seal can tell otherwise.
        record = json.loads(content.decode(), object_pairs_hook=_distinct if tail is None else None)
    except (ValueError, RecursionError) as error:
        raise DamageError([Problem(where, f"is damaged: {problem_of(path, error, 'JSON').what}; {REMEDY}")]) from error
    if not isinstance(record, dict):
        raise DamageError([Problem(where, f"is damaged: holds a {type(record).__name__}, no object; {REMEDY}")])
    last = next(reversed(record.values()), None)
    # No record of an earlier version ends so: this is a seal with a flipped bit.
    if tail is None and (SEAL in record or (isinstance(last, str) and len(last) == 64)):
        raise DamageError([Problem(where, f"is damaged: its checksum cannot be read; {REMEDY}")])
    if missing := [name for name in needs if name not in record]:
        raise DamageError([Problem(where, f"is damaged: lacks {', '.join(missing)}; {REMEDY}")])
    return record


def is_sealed(content: bytes) -> bool:
    """Return whether a line without its end has its seal, and is what was written."""
    tail = _TAIL.search(content)
    sealed_part = content[: tail.start()] + b"}" if tail is not None else b""
    return tail is not None and hashlib.sha256(sealed_part).hexdigest().encode() == tail[2]


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


def passed_over(read: Callable[[], Read], otherwise: Read) -> Read:
    """Return what `read` returns, or `otherwise` where a record is damaged; then a note names it, once.

    For readers of many records: one that is damaged must hide no other.
    """
    try:
        return read()
    except DamageError as error:
        note_damage(error)
        return otherwise


def note_damage(error: DamageError) -> None:
    """Log what is damaged and is done without, once a process."""
    for problem in error.problems:
        if str(problem) not in _noted:
            _noted.add(str(problem))
            log.warning(f"note: {problem}")
