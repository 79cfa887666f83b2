"""A remote store's working copy on this machine: which side of a folder is newer, and what is copied where.

Frames are mapped into memory, checkpoints replaced, lines appended: all of that needs files. So a machine works in a
copy with the store's own layout, *fetches* a folder before it looks and *publishes* it after writes that must survive.
`mirror/<folder>.json` keeps what was last the same on both sides (synced.py).

What was written here and not yet published is lost only where another machine has gone on since. For a trial that is
decided as a whole, for its rows and its checkpoint belong together: they stay where the remote's rows are the beginning
of the rows here. A trial's objects are published in an order in which each stands on those before, the result last.

Each object is published over the version that was last seen of it. One that has changed since was written by another
machine, or by an attempt of our own whose answer was lost: while the lock of the folder is still ours, it is replaced.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from filelock import FileLock

from kdtune.errors import Problem, StoreError
from kdtune.store.files import disk_full, write_json
from kdtune.store.lease import SharedLock
from kdtune.store.objects import Changed
from kdtune.store.remote import Listing, Remote
from kdtune.store.synced import LINES, News, Record, rank, read_lenient, read_record, stamp

log = logging.getLogger(__name__)

#: Between two looks at a folder that is kept up to date, in seconds.
KEEP_S = 5.0
THREADS = 16
#: How often an object may change while it is being replaced.
CONFLICTS = 8


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

        A complete trial does not change any more: nothing is asked of the remote where all of it is on both sides.
        `seen` is a listing from before: where it has nothing new, no other is made. A trial's checkpoints that are not
        asked for, and are old by now, are removed: they do not go with the new records.
        """
        place, trial = self.root / folder, folder.startswith("trials/")
        if trial and all((place / name).exists() for name in ("result.json", *more)) and not self.unpublished(folder):
            return

        def wanted(name: str) -> bool:
            return not name.endswith(".pt") or name in more

        with self._record(folder) as record:
            # Within the lock, for what a process of this machine publishes meanwhile is no news.
            news = None if seen is None else News(record, place, seen)
            if news is None or news.changed or news.gone or any(map(wanted, news.missing)):
                news = News(record, place, self.remote.listing(folder))
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
            for name in sorted(bring, key=lambda name: (not name.endswith(".pt"), rank(name))):
                if wanted(name) and self.remote.get(f"{folder}/{name}", place / name):
                    record[name] = {"object": news.there[name], "file": stamp(place / name)}
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

        Raises LockLost where the lock of the folder, held by this process, has gone to another machine; and StoreError
        where this process does not hold the lock of a trial and another machine has written the trial's objects.
        """
        place, guard = self.root / folder, self.remote.guards.get(_lock_of(folder))
        with self._record(folder) as record:
            news = News(record, place, {})
            if not news.ours:
                return
            written = sorted(news.ours & news.files.keys(), key=rank)
            removed = sorted(news.ours - news.files.keys())
            for name in (*written, *removed):
                path = place / name if name in news.files else None
                self._replace(f"{folder}/{name}", path, record.get(name, {}).get("object"), guard)
            there = self.remote.listing(folder)
            if guard is not None:
                self.remote.ask(partial(guard, False))  # so that these are the versions that were written here
            for name in written:
                record[name] = {"object": there.get(name), "file": news.files[name]}
            for name in removed:
                record.pop(name, None)

    def unpublished(self, folder: str) -> bool:
        """Return whether something was written here that the remote does not have."""
        with self._record(folder) as record:
            return bool(News(record, self.root / folder, {}).ours)

    def _replace(self, name: str, path: Path | None, over: str | None, guard: Callable[[bool], None] | None) -> None:
        """Make the object `name`, last seen in the version `over`, the file `path`; None removes it."""
        now = False
        for _ in range(CONFLICTS):
            held = None if guard is None else partial(guard, now)
            try:
                if path is None:
                    return self.remote.remove(name, over, held)
                return self.remote.put(path, name, over, held)
            except Changed:
                if guard is None and name.startswith("trials/"):
                    break
                over, now = self.remote.version(name), True
        what = "another machine has written it meanwhile; the same command goes on with what is there"
        raise StoreError([Problem(f"{self.remote.url}/{name}", what)])

    def withdraw(self, folder: str, name: str) -> None:
        """Remove a file's object, so that no machine fetches it again; for the holder of the folder's lock."""
        guard = self.remote.guards.get(_lock_of(folder))
        with self._record(folder) as record:
            self._replace(f"{folder}/{name}", None, record.get(name, {}).get("object"), guard)
            record.pop(name, None)

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
                    log.warning(f"{folder} is not published yet: {str(error).strip()}")

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
    def _record(self, folder: str) -> Iterator[Record]:
        """The record of a folder; written back at the end."""
        path = self.root / "mirror" / f"{folder}.json"
        with self._usable(), self._lock(folder.replace("/", "-")):
            record = read_record(path)
            before = json.dumps(record)
            try:
                yield record
            finally:
                if json.dumps(record) != before:
                    write_json(path, record)

    def _copy_id(self) -> str:
        """Names this working copy; another one on every machine."""
        path, host = self.root / "mirror" / "copy.json", socket.gethostname()
        with self._usable(), self._lock("copy"):
            found = read_lenient(path)
            if not isinstance(found.get("id"), str) or found.get("host") != host:
                found = {"id": uuid.uuid4().hex, "host": host}
                write_json(path, found)
        return found["id"]

    def _lock(self, name: str) -> FileLock:
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"mirror-{name}.lock")

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """Raise StoreError where the working copy cannot be read or written. A full disk is the caller's."""
        try:
            yield
        except OSError as error:
            if disk_full(error):
                raise
            at = f" ({error.filename})" if error.filename else ""
            what = f"the working copy of {self.remote.url} cannot be used: {error.strerror or error}{at}"
            raise StoreError([Problem(str(self.root), what, "KDTUNE_CACHE: a folder that can be written")]) from error


def _lock_of(folder: str) -> str:
    """The name of the lock that who writes a trial or drives a sweep holds: `trials/KEY` → `trial-KEY`."""
    kind, _, name = folder.partition("/")
    return f"{kind.removesuffix('s')}-{name}"
