"""A remote store's working copy on this machine: decide which side of a folder is newer, and copy it.

Memory maps, replaced checkpoints and appended lines all need files. A machine therefore works in a copy with the
store's layout, *fetches* a folder before it reads and *publishes* it after writes that must survive.
`mirror/<folder>.json` records the last state that was the same on both sides (synced.py).

Unpublished writes of this machine are dropped only if another machine has continued the work since. A trial is decided
as a whole, because its rows and its checkpoint belong together: this machine's files stay if its rows begin with the
remote's rows. A trial's objects are published so that each depends only on earlier ones; the result comes last.

Each object is published over the version last seen. If it has changed, another machine wrote it, or our own attempt did
and its answer was lost: while this process holds the folder's lock, it replaces the object.
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

from kdtune.errors import StoreError
from kdtune.store.files import disk_full, write_json
from kdtune.store.lease import SharedLock
from kdtune.store.objects import Changed
from kdtune.store.remote import Listing, Remote
from kdtune.store.synced import LINES, UNKNOWN, News, Record, rank, read_lenient, read_record, stamp

log = logging.getLogger(__name__)

#: Seconds between two updates of a folder that is kept in sync.
KEEP_S = 5.0
THREADS = 16
#: Maximum number of attempts to replace an object that keeps changing.
CONFLICTS = 8


class Mirror:
    """The working copy in `root` of a remote store."""

    def __init__(self, remote: Remote, root: Path) -> None:
        self.remote, self.root = remote, root

    @classmethod
    def of(cls, url: str, reached: bool) -> Mirror:
        """Return this machine's working copy of a URL: a folder of its own in KDTUNE_CACHE or ~/.cache/kdtune."""
        remote = Remote(url, reached)
        cache = Path(os.environ.get("KDTUNE_CACHE") or "~/.cache/kdtune").expanduser().absolute()
        return cls(remote, cache / hashlib.sha256(remote.url.reveal().encode()).hexdigest()[:16])

    def lock(self, name: str, here: FileLock) -> SharedLock:
        """Return a lock among this machine's processes, which share the lock `here`, and all other machines."""
        return SharedLock(here, self.remote, name, self._copy_id())

    # ---- one side to the other ---------------------------------------------------------------------------------------

    def fetch(self, folder: str, more: Iterable[str] = (), seen: Listing | None = None) -> None:
        """Download what other machines have written to `folder` since: its records, and the checkpoints in `more`.

        A complete trial no longer changes: if all of it is on both sides, no request is made. `seen` is an earlier
        listing; a new one is made only if it shows something new. Removes outdated checkpoints of a trial that are not
        in `more`, because they do not match the new records.
        """
        place, trial = self.root / folder, folder.startswith("trials/")
        if trial and all((place / name).exists() for name in ("result.json", *more)) and not self.unpublished(folder):
            return

        def wanted(name: str) -> bool:
            return not name.endswith(".pt") or name in more

        with self._record(folder) as record:
            # Under the lock: what another process of this machine publishes meanwhile is no news.
            news = None if seen is None else News(record, place, seen)
            if news is None or news.changed or news.gone or any(map(wanted, news.missing)):
                news = News(record, place, self.remote.listing(folder))
            changed, ours, gone = news.changed, news.ours, news.gone - news.ours
            if not trial:
                changed -= {name for name in changed & ours if name.endswith(LINES) and self._is_ahead(folder, name)}
            elif ours and changed:
                if self._is_ahead(folder, "epochs.jsonl"):
                    for name in changed:  # mark it as seen, and as to be published again
                        record[name] = {"object": news.there[name], "file": None}
                    return
                changed, gone = changed | (ours & news.there.keys()), gone | (ours - news.there.keys())
            # Checkpoints first: if this is interrupted, the rows still show that the remote is ahead.
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
        """Fetch the folders `names` in `parent`, or all of them, with a single listing."""
        trees = self.remote.tree(parent)
        folders = trees if names is None else [f"{parent}/{name}" for name in names]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda folder: self.fetch(folder, seen=trees.get(folder, {})), folders))

    def publish(self, folder: str) -> None:
        """Upload what this machine has written since. Makes no request if there is nothing.

        Raises LockLost if this process held the folder's lock and another machine has taken it over, and StoreError if
        this process does not hold a trial's lock and another machine has written the trial's objects.
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
                self._replace(f"{folder}/{name}", path, record.get(name, UNKNOWN)["object"], guard)
            there = self.remote.listing(folder)
            if guard is not None:
                self.remote.ask(partial(guard, False))  # so that the listed versions are our own
            for name in written:
                record[name] = {"object": there.get(name), "file": news.files[name]}
            for name in removed:
                record.pop(name, None)

    def unpublished(self, folder: str) -> bool:
        """Return whether this machine has written something that the remote lacks."""
        with self._record(folder) as record:
            return bool(News(record, self.root / folder, {}).ours)

    def _replace(self, name: str, path: Path | None, over: str | None, guard: Callable[[bool], None] | None) -> None:
        """Replace the object `name`, last seen in the version `over`, with the file `path`; None removes it."""
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
        what = "another machine has written it meanwhile; run the same command to resume from there"
        raise StoreError.at(f"{self.remote.url}/{name}", what)

    def withdraw(self, folder: str, name: str) -> None:
        """Remove a file's object, so that no machine fetches it again. Call it under the folder's lock."""
        guard = self.remote.guards.get(_lock_of(folder))
        with self._record(folder) as record:
            self._replace(f"{folder}/{name}", None, record.get(name, UNKNOWN)["object"], guard)
            record.pop(name, None)

    @contextmanager
    def synced(self, folder: str) -> Iterator[None]:
        """Keep a folder in sync inside the `with`: fetch and publish it every KEEP_S, and publish at the end."""
        self.fetch(folder)
        ended = threading.Event()

        def keep() -> None:
            while not ended.wait(KEEP_S):
                try:
                    self.fetch(folder)
                    self.publish(folder)
                except (StoreError, OSError) as error:  # the last attempt, at the end, raises it
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
        """Return whether this machine's file begins with all lines of its object."""
        path = self.root / folder / name
        return (path.read_bytes() if path.exists() else b"").startswith(self.remote.read(f"{folder}/{name}") or b"")

    # ---- the record of both sides ------------------------------------------------------------------------------------

    @contextmanager
    def _record(self, folder: str) -> Iterator[Record]:
        """Yield the record of a folder under its lock, and write it back if it has changed."""
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
        """Return the id of this working copy, which differs on every machine."""
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
        """Raise StoreError if the working copy cannot be read or written. The OSError of a full disk passes through."""
        try:
            yield
        except OSError as error:
            if disk_full(error):
                raise
            at = f" ({error.filename})" if error.filename else ""
            what = f"the working copy of {self.remote.url} cannot be used: {error.strerror or error}{at}"
            raise StoreError.at(self.root, what, "KDTUNE_CACHE: a folder that can be written") from error


def _lock_of(folder: str) -> str:
    """Return the name of the lock that a folder's writer holds: `trials/KEY` → `trial-KEY`."""
    kind, _, name = folder.partition("/")
    return f"{kind.removesuffix('s')}-{name}"
