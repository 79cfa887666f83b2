"""A remote store's working copy on this machine: which side of a folder is newer, and what is copied where.

Frames are mapped into memory, checkpoints replaced, lines appended: all of that needs files. So a machine works in a
copy with the store's own layout, *fetches* a folder before it looks and *publishes* it after writes that must survive.
`mirror/<folder>.json` keeps, for each file, the object's version and the file's stamp when both were last the same: a
file with another stamp was written here since, an object with another version by another machine.

What was written here and not yet published is lost only where another machine has gone on since. For a trial that is
decided as a whole, for its rows and its checkpoint belong together: they stay where the remote's rows are the beginning
of the rows here. A trial's objects are published in an order in which each stands on those before, the result last.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import threading
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from kdtune.errors import StoreError
from kdtune.files import read_json, write_json
from kdtune.lease import SharedLock
from kdtune.remote import Listing, Remote

#: In the order in which they are published: a checkpoint beyond its rows would lose them, a row beyond it is dropped.
ORDER = ("config.json", "classes_", "stage_", "epochs.jsonl", "checkpoint.pt", "failure.json", "result.json")
#: Stays here: an object is never half written, so it needs none before it.
HERE = {"checkpoint_before.pt"}
#: The files that are ever removed; any other that is missing here was lost, and is fetched again.
CLEARED = {"failure.json", "driver.json", "stop"}
#: Files with a line for each event, added at the end.
LINES = (".jsonl", ".log")
#: Between two looks at a folder that is kept up to date, in seconds.
KEEP_S = 5.0
THREADS = 16


class Mirror:
    """The working copy in `root` of a remote store."""

    def __init__(self, remote: Remote, root: Path) -> None:
        self.remote, self.root = remote, root

    @classmethod
    def of(cls, url: str, reached: bool) -> Mirror:
        """That of this machine: in KDTUNE_CACHE or ~/.cache/kdtune, in a folder of its own for each URL."""
        remote = Remote(url, reached)
        cache = Path(os.environ.get("KDTUNE_CACHE") or "~/.cache/kdtune").expanduser().absolute()
        return cls(remote, cache / hashlib.sha256(remote.url.reveal().encode()).hexdigest()[:16])

    def lock(self, name: str, here: FileLock) -> SharedLock:
        """Among this machine's processes, which have the lock `here`, and all machines that see the remote."""
        return SharedLock(here, self.remote, name, self._copy_id())

    # ---- one side to the other ---------------------------------------------------------------------------------------

    def fetch(self, folder: str, more: Iterable[str] = (), seen: Listing | None = None) -> None:
        """Bring what of `folder` another machine has written since: the records and, of the checkpoints, `more`.

        A complete trial does not change any more: nothing is asked of the remote where all of it is here. `seen` is a
        listing from before: where it has nothing new, no other is made. A trial's checkpoints that are not asked for,
        and are old by now, are removed: they do not go with the new records.
        """
        place, trial = self.root / folder, folder.startswith("trials/")
        if trial and all((place / name).exists() for name in ("result.json", *more)):
            return

        def wanted(name: str) -> bool:
            return not name.endswith(".pt") or name in more

        with self._record(folder) as record:
            # Within the lock, for what a process of this machine publishes meanwhile is no news.
            news = None if seen is None else _News(record, place, seen)
            if news is None or news.changed or news.gone or any(map(wanted, news.missing)):
                news = _News(record, place, self.remote.listing(folder))
            changed, ours, gone = news.changed, news.ours, news.gone - news.ours
            if not trial:
                changed -= {name for name in changed & ours if name.endswith(LINES) and self._is_ahead(folder, name)}
            elif ours and changed:
                if self._is_ahead(folder, "epochs.jsonl"):
                    for name in changed:  # seen, and to be published again
                        record[name] = {"object": news.there[name], "file": None}
                    return
                changed, gone = changed | (ours & news.there.keys()), gone | (ours - news.there.keys())
            # Checkpoints first: where this ends half-way, the rows show that the remote is still ahead.
            bring = changed | set(filter(wanted, news.missing))
            for name in sorted(bring, key=lambda name: (not name.endswith(".pt"), _rank(name))):
                if wanted(name) and self.remote.get(f"{folder}/{name}", place / name):
                    record[name] = {"object": news.there[name], "file": _stamp(place / name)}
                else:
                    gone.add(name)
            for name in gone:
                (place / name).unlink(missing_ok=True)
                record.pop(name, None)

    def fetch_all(self, parent: str, names: Iterable[str] | None = None) -> None:
        """`fetch` these folders in `parent`, or all, with one listing."""
        trees = self.remote.tree(parent)
        folders = trees if names is None else [f"{parent}/{name}" for name in names]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda folder: self.fetch(folder, seen=trees.get(folder, {})), folders))

    def publish(self, folder: str) -> None:
        """Bring to the remote what was written here since; nothing is asked of it where nothing was.

        Raises StoreError where a lock that this process held has gone to another machine.
        """
        place = self.root / folder
        with self._record(folder) as record:
            news = _News(record, place, {})
            if not news.ours:
                return
            for guard in self.remote.guards:
                guard()
            written = sorted(news.ours & news.files.keys(), key=_rank)
            for name in written:
                self.remote.put(place / name, f"{folder}/{name}")
            for name in news.ours - news.files.keys():
                self.remote.remove(f"{folder}/{name}")
                del record[name]
            there = self.remote.listing(folder)
            for name in written:
                record[name] = {"object": there.get(name, ""), "file": news.files[name]}

    @contextmanager
    def kept(self, folder: str) -> Iterator[None]:
        """Within the `with` news of a sweep's folder go to and fro every few seconds; at the end all is published."""
        self.fetch(folder)
        ended = threading.Event()

        def keep() -> None:
            while not ended.wait(KEEP_S):
                try:
                    self.fetch(folder)
                    self.publish(folder)
                except (StoreError, OSError) as error:  # the last one, at the end, is raised
                    print(f"kdtune: {folder} is not published yet: {str(error).strip()}", file=sys.stderr)

        thread = threading.Thread(target=keep, name=f"kdtune-keep-{folder}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.publish(folder)

    def _is_ahead(self, folder: str, name: str) -> bool:
        """Has this file here all lines that its object has?"""
        path = self.root / folder / name
        return (path.read_bytes() if path.exists() else b"").startswith(self.remote.read(f"{folder}/{name}") or b"")

    # ---- what is known of both sides ---------------------------------------------------------------------------------

    @contextmanager
    def _record(self, folder: str) -> Iterator[dict[str, Any]]:
        """Name → {"object": its version, "file": its stamp} of when both were the same; written back at the end."""
        path = self.root / "mirror" / f"{folder}.json"
        with self._lock(folder.replace("/", "-")):
            record = read_json(path) or {}
            before = json.dumps(record)
            try:
                yield record
            finally:
                if json.dumps(record) != before:
                    write_json(path, record)

    def _copy_id(self) -> str:
        """Names this working copy; another one on every machine."""
        path, host = self.root / "mirror" / "copy.json", socket.gethostname()
        with self._lock("copy"):
            found = read_json(path)
            if found is None or found["host"] != host:
                found = {"id": uuid.uuid4().hex, "host": host}
                write_json(path, found)
        return found["id"]

    def _lock(self, name: str) -> FileLock:
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"mirror-{name}.lock")


class _News:
    """What differs between a folder here, its objects, and the record of when both were the same."""

    def __init__(self, record: dict[str, Any], place: Path, there: Listing) -> None:
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


def _rank(name: str) -> tuple[int, str]:
    return next((i for i, start in enumerate(ORDER) if name.startswith(start)), -1), name


def _stamps(place: Path) -> dict[str, list[int]]:
    """Of every file of a folder that has an object; temporary ones, whose names begin with a dot, have none."""
    stamps = {}
    for path in place.iterdir() if place.is_dir() else ():
        if path.name not in HERE and not path.name.startswith("."):
            with suppress(FileNotFoundError):  # it may be replaced just now
                stamps[path.name] = _stamp(path)
    return stamps


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]
