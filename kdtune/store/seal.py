"""A record's seal: a digest of its text as its last entry, so that a change of any bit is noticed.

    {"epoch": 1, …, "record_sha256": "<SHA-256 of the text without this entry>"}

The seal covers the bytes as written, so a reformatted record counts as changed. A record without a seal is damaged;
only an empty object has none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from kdtune.errors import DamageError
from kdtune.parse import JsonObject, problem_of

log = logging.getLogger(__name__)

#: The key of the seal.
SEAL = "record_sha256"
#: Hint that ends a message about damage.
REMEDY = "see `kdtune store check`"

_TAIL = re.compile(rb',(\n |\s)"record_sha256": "([0-9a-f]{64})"(\n?)\}$')
Read = TypeVar("Read")
_noted: set[str] = set()


def sealed(text: str) -> str:
    """Return the JSON of an object with its seal; an empty object stays as it is."""
    if text == "{}":
        return text
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    if text.endswith("\n}"):
        return f'{text[:-2]},\n "{SEAL}": "{sha256}"\n}}'
    return f'{text[:-1]}, "{SEAL}": "{sha256}"}}'


def opened(content: bytes, path: Path, line: int | None = None, needs: Iterable[str] = ()) -> JsonObject:
    """Return the object in a record's bytes, without its seal.

    Raises DamageError if the bytes lack a checksum or fail it, are not an object, or lack a key of `needs`.
    """
    where = str(path) if line is None else f"{path}:{line}"
    tail = _TAIL.search(content)
    if tail is not None:
        content = content[: tail.start()] + tail[3] + b"}"
        if hashlib.sha256(content).hexdigest().encode() != tail[2]:
            raise DamageError.at(where, f"is damaged: it does not match its checksum; {REMEDY}")
    try:
        record = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise DamageError.at(where, f"is damaged: {problem_of(path, error, 'JSON').what}; {REMEDY}") from error
    if not isinstance(record, dict):
        raise DamageError.at(where, f"is damaged: holds a {type(record).__name__}, not an object; {REMEDY}")
    if tail is None and record:
        raise DamageError.at(where, f"is damaged: its checksum cannot be read; {REMEDY}")
    if missing := [name for name in needs if name not in record]:
        raise DamageError.at(where, f"is damaged: lacks {', '.join(missing)}; {REMEDY}")
    return record


def is_sealed(content: bytes) -> bool:
    """Return whether a line without its newline has a seal that matches."""
    tail = _TAIL.search(content)
    sealed_part = content[: tail.start()] + b"}" if tail is not None else b""
    return tail is not None and hashlib.sha256(sealed_part).hexdigest().encode() == tail[2]


def passed_over(read: Callable[[], Read], otherwise: Read) -> Read:
    """Return the result of `read`; if a record is damaged, log a note that names it and return `otherwise`.

    For readers of many records: a damaged one must not hide the others.
    """
    try:
        return read()
    except DamageError as error:
        note_damage(error)
        return otherwise


def note_damage(error: DamageError) -> None:
    """Log a note about a damaged record that is skipped, once per process."""
    for problem in error.problems:
        if str(problem) not in _noted:
            _noted.add(str(problem))
            log.warning(f"note: {problem}")
