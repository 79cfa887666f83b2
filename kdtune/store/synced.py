"""What of a remote store's folder is the same here and there, and what differs.

A record keeps, for each file, the object's version and the file's stamp when both were last the same: a file with
another stamp was written here since, an object with another version by another machine.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdtune.names import is_name
from kdtune.store.remote import Listing

#: In the order in which they are published: a checkpoint beyond its rows would lose them, a row beyond it is dropped.
ORDER = ("config.json", "classes_", "stage_", "epochs.jsonl", "checkpoint.pt", "failure.json", "result.json")
#: Stays here: an object is never half written, so it needs none before it.
HERE = {"checkpoint_before.pt"}
#: The files that are ever removed; any other that is missing here was lost, and is fetched again.
CLEARED = {"failure.json", "driver.json", "stop"}
#: Files with a line for each event, added at the end.
LINES = (".jsonl", ".log")
#: Name → {"object": its version, "file": its stamp} of when both were the same; None where that is not known.
Record = dict[str, dict[str, Any]]


class News:
    """What differs between a folder here, its objects, and the record of when both were the same."""

    def __init__(self, record: Record, place: Path, there: Listing) -> None:
        self.there = there
        self.files = _stamps(place)
        cleared = (record.keys() - self.files.keys()) & CLEARED
        self.ours = {name for name, stamp in self.files.items() if record.get(name, {}).get("file") != stamp} | cleared
        """Written here, or removed."""
        known = record.keys() | self.files.keys()
        self.changed = {name for name in there.keys() & known if record.get(name, {}).get("object") != there[name]}
        """Written by another machine."""
        self.missing = there.keys() - self.files.keys() - cleared
        """Not here: never asked for, or lost."""
        self.gone = record.keys() - there.keys()
        """Removed by another machine."""


def rank(name: str) -> tuple[int, str]:
    return next((i for i, start in enumerate(ORDER) if name.startswith(start)), -1), name


def _stamps(place: Path) -> dict[str, list[int]]:
    """Name → stamp of every file of a folder that has an object; temporary ones have none, nor what is not ours."""
    stamps = {}
    for path in place.iterdir() if place.is_dir() else ():
        if path.name not in HERE and is_name(path.name) and path.is_file():
            with suppress(FileNotFoundError):  # it may be replaced just now
                stamps[path.name] = stamp(path)
    return stamps


def stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def read_lenient(path: Path) -> dict[str, Any]:
    """The content of a file that only makes things faster: one that is damaged counts as none."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_record(path: Path) -> Record:
    """What is known of a folder. Without a record everything is looked at anew, and nothing is lost by that."""

    def sound(name: str, known: Any) -> bool:
        if not is_name(name) or not isinstance(known, dict) or known.keys() != {"object", "file"}:
            return False
        seen, stamp = known["object"], known["file"]
        return isinstance(seen, str | None) and isinstance(stamp, list | None)

    return {name: known for name, known in read_lenient(path).items() if sound(name, known)}
