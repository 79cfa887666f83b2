"""Compare a folder of the working copy with its objects in the remote store.

A record holds, for each file, the object's version and the file's stamp when both were last the same. A file with
another stamp was written here since; an object with another version was written by another machine.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

from kdtune.names import is_name
from kdtune.parse import JsonObject
from kdtune.store.remote import Listing

#: Order of publication. Rows precede their checkpoint: a row without its checkpoint is dropped, but a checkpoint
#: without its rows would lose them.
ORDER = ("config.json", "classes_", "stage_", "epochs.jsonl", "checkpoint.pt", "failure.json", "result.json")
#: Never published: an object is never half written, so the remote needs no previous checkpoint.
LOCAL_ONLY = {"checkpoint_before.pt"}
#: Files that kdtune removes. Any other missing file was lost, and is fetched again.
CLEARED = {"failure.json", "driver.json", "stop"}
#: Files to which lines are appended.
LINES = (".jsonl", ".log")


class Known(TypedDict):
    """A file when it was the same on both sides; None for what is unknown."""

    object: str | None
    """The object's version."""
    file: list[int] | None
    """The file's stamp."""


UNKNOWN: Known = {"object": None, "file": None}
#: Name → the file when both sides were last the same.
Record = dict[str, Known]


class News:
    """The differences between a folder, its objects and the record of when both were the same."""

    def __init__(self, record: Record, place: Path, there: Listing) -> None:
        self.there = there
        self.files = _stamps(place)
        cleared = (record.keys() - self.files.keys()) & CLEARED
        self.ours = {name for name, at in self.files.items() if record.get(name, UNKNOWN)["file"] != at} | cleared
        """Written or removed by this machine."""
        known = record.keys() | self.files.keys()
        self.changed = {name for name in there.keys() & known if record.get(name, UNKNOWN)["object"] != there[name]}
        """Written by another machine."""
        self.missing = there.keys() - self.files.keys() - cleared
        """Not on this machine: never requested, or lost."""
        self.gone = record.keys() - there.keys()
        """Removed by another machine."""


def rank(name: str) -> tuple[int, str]:
    """Return the sort key of a file's name in ORDER; names that ORDER lacks come first."""
    return next((i for i, start in enumerate(ORDER) if name.startswith(start)), -1), name


def _stamps(place: Path) -> dict[str, list[int]]:
    """Return name → stamp of a folder's files, without temporary, local-only and foreign ones."""
    stamps = {}
    for path in place.iterdir() if place.is_dir() else ():
        if path.name not in LOCAL_ONLY and is_name(path.name) and path.is_file():
            with suppress(FileNotFoundError):  # another process may be replacing it
                stamps[path.name] = stamp(path)
    return stamps


def stamp(path: Path) -> list[int]:
    """Return size, mtime (ns) and inode of a file, which change with every atomic write."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def read_lenient(path: Path) -> JsonObject:
    """Return the content of a file that only saves time; empty if it is missing or damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_record(path: Path) -> Record:
    """Return the record of a folder, without damaged entries. A missing entry costs only a new comparison."""

    def sound(name: str, known: Any) -> bool:
        if not is_name(name) or not isinstance(known, dict) or known.keys() != {"object", "file"}:
            return False
        seen, stamp = known["object"], known["file"]
        return isinstance(seen, str | None) and isinstance(stamp, list | None)

    return {name: known for name, known in read_lenient(path).items() if sound(name, known)}
