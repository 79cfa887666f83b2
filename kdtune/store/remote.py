"""The objects of a store behind an fsspec URL (s3://bucket/path, …): write them atomically, list them, create them.

A failed attempt is repeated with growing pauses for at most PATIENCE_S; an error that a retry cannot cure (no such
bucket, no permission, no package for the protocol) is raised at once. Either message names the URL. Each attempt has a
time limit (objects.py). An attempt to write needs its guard's consent, because the caller's lock may go to another
machine while this one waits.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from kdtune.errors import StoreError
from kdtune.names import is_name
from kdtune.store.files import disk_full
from kdtune.store.objects import ANY, Changed, Over, Request, connect, is_s3, version
from kdtune.urls import SecretUrl, redact

log = logging.getLogger(__name__)

#: Seconds that an outage is tolerated: normally, and before the URL has ever answered.
PATIENCE_S, FIRST_PATIENCE_S = 120.0, 3.0
#: Seconds between two attempts: at first, and at most.
PAUSE_S, MAX_PAUSE_S = 0.5, 15.0

#: Errors that a retry cannot cure.
HOPELESS = (PermissionError, ImportError, ValueError, NotImplementedError)
HOPELESS_ERRNO = {errno.EINVAL, errno.EPERM, errno.ENOSYS}
HOPELESS_NAMES = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError"}

#: Name → version, which changes whenever the object is written.
Listing = dict[str, str]
Made = TypeVar("Made")
#: Raises StoreError if this process may no longer write, and ConnectionError if that is unknown for now.
Guard = Callable[[], None]


class Remote:
    """The objects behind one URL. Names are relative to it, with slashes."""

    def __init__(self, url: str, reached: bool = False) -> None:
        """Raise StoreError for a web server, which fsspec takes for an empty folder if it cannot be reached."""
        self.url, self.reached = SecretUrl(url.rstrip("/")), reached
        if url.lower().startswith(("http://", "https://")):
            what = "belongs to a web server, whose files can be neither listed nor written"
            raise StoreError.at(self.url, what, "a folder, or a URL that fsspec can write to")
        self._patience = _Patience()
        self.guards: dict[str, Callable[[bool], None]] = {}
        """`Lease.check` of each lock that this process holds, by the lock's name."""
        self._connection: tuple[int, Any, str] | None = None

    # ---- requests ----------------------------------------------------------------------------------------------------

    def listing(self, folder: str) -> Listing:
        """Return the objects directly in a folder. Skips names that kdtune never writes (names.py), so that none leads
        out of the working copy."""
        try:
            found = self._try("read", lambda request: request("ls", folder, detail=True))
        except FileNotFoundError:
            return {}
        named = ((info["name"].rsplit("/", 1)[-1], info) for info in found if info["type"] == "file")
        return {name: version(info) for name, info in named if is_name(name)}

    def tree(self, folder: str) -> dict[str, Listing]:
        """Return folder → its objects for every folder below `folder`, in as few requests as the protocol allows."""

        def ask(request: Request) -> list[tuple[str, Any]]:
            found = request("find", folder, detail=True)
            return [(path.removeprefix(request.root).lstrip("/"), info) for path, info in found.items()]

        listings: dict[str, Listing] = {}
        with suppress(FileNotFoundError):
            for path, info in self._try("read", ask):
                parent, _, name = path.rpartition("/")
                if info["type"] == "file" and all(map(is_name, path.split("/"))):
                    listings.setdefault(parent, {})[name] = version(info)
        return listings

    def read(self, name: str) -> bytes | None:
        """Return the content of an object, or None if there is none."""
        try:
            return self._try("read", lambda request: request("cat_file", name))
        except FileNotFoundError:
            return None

    def get(self, name: str, path: Path) -> bool:
        """Download an object to `path` atomically; return False if there is none. Raises OSError if the disk fails."""
        path.parent.mkdir(parents=True, exist_ok=True)
        copy = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            self._try("read", lambda request: request("get_file", name, str(copy)))
            with copy.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(copy, path)
        except FileNotFoundError:
            return False
        finally:
            copy.unlink(missing_ok=True)
        return True

    def version(self, name: str) -> str | None:
        """Return the version of an object, or None if there is none."""
        return self._try("read", lambda request: request.version(name))

    def put(self, path: Path, name: str, over: Over = ANY, guard: Guard | None = None) -> None:
        """Upload a file as an object. Readers see the old object or the new one.

        Raises Changed if the object is not in the version `over`, and StoreError if `guard` refuses.
        """
        path.stat()  # a missing file raises FileNotFoundError here, so that it is not taken for a missing bucket
        self._write(lambda request: request.write(name, path, over, guard or _allow), guard)

    def write(self, name: str, content: bytes, over: Over = ANY, guard: Guard | None = None) -> None:
        """Upload bytes as an object, as `put` does with a file."""
        self._write(lambda request: request.write(name, content, over), guard)

    def create(self, name: str, content: bytes) -> bool:
        """Create an object unless it exists; return whether ours exists now. `content` must be unique.

        S3 does that in one step (If-None-Match). With other protocols two callers may both get True.
        """
        with suppress(Changed):
            self._write(lambda request: request.create(name, content))
        # Read it: if the first attempt's answer was lost, the second attempt finds the first one's object.
        return self.read(name) == content

    def remove(self, name: str, over: str | None = None, guard: Guard | None = None) -> None:
        """Remove an object if there is one. Raises as `put` does."""
        with suppress(FileNotFoundError):
            self._try("written", lambda request: request.remove(name, over), guard)

    def ask(self, guard: Guard) -> None:
        """Return once the guard allows, waiting out an outage. Raises StoreError if it refuses."""
        self._try("written", lambda _: None, guard)

    def check_writable(self) -> None:
        """Raise StoreError if objects cannot be created; warn if the server ignores the conditions of a write."""
        probe = f"locks/probe-{uuid.uuid4().hex}"
        self.create(probe, b"first")
        try:
            loose = self.create(probe, b"second")
            if not loose and is_s3(str(self.url)):
                with suppress(Changed):
                    self.write(probe, b"third", over=f'"{"0" * 32}"')
                    loose = True
            if loose:
                what = "its server ignores the conditions of a write: run one sweep and one worker at a time on it"
                log.warning(f"{self.url}: {what}")
        finally:
            with suppress(StoreError), self.patience(0.0):
                self.remove(probe)

    # ---- patience ----------------------------------------------------------------------------------------------------

    @contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        """Set how long this thread tolerates an outage inside the `with`."""
        before, self._patience.seconds = self._patience.seconds, seconds
        try:
            yield
        finally:
            self._patience.seconds = before

    def _write(self, action: Callable[[Request], object], guard: Guard | None = None) -> None:
        try:
            self._try("written", action, guard)
        except FileNotFoundError as error:
            raise StoreError.at(self.url, "there is no such bucket or folder to write to") from error

    def _try(self, verb: str, action: Callable[[Request], Made], guard: Guard | None = None) -> Made:
        """Repeat `action` until it succeeds. Raises StoreError when patience ends; passes on FileNotFoundError, Changed
        and a full disk's error."""
        began, pause, told = time.monotonic(), PAUSE_S, False
        patience = PATIENCE_S if self._patience.seconds is None else self._patience.seconds
        if not self.reached:
            patience = min(patience, FIRST_PATIENCE_S)
        while True:
            try:
                request = Request(*self._connected(), first=not self.reached)
                if guard is not None:
                    guard()
                made = action(request)
            except (FileNotFoundError, Changed):
                self.reached = True
                raise
            except StoreError:  # the guard's
                raise
            except Exception as error:
                if disk_full(error):
                    raise
                reason = _reason(error)
                waited = time.monotonic() - began
                if _hopeless(error):
                    raise StoreError.at(self.url, f"cannot be {verb}: {reason}", _advice(str(self.url))) from error
                if waited + pause > patience:
                    raise StoreError.at(self.url, f"cannot be reached: {reason}; tried for {waited:.0f} s") from error
                if self.reached and not told:
                    what = f"cannot be reached ({reason}); trying for {patience:.0f} s"
                    log.warning(f"{self.url} {what}")
                    told = True
                time.sleep(pause)
                pause = min(2 * pause, MAX_PAUSE_S)
            else:
                self.reached = True
                return made

    def _connected(self) -> tuple[Any, str]:
        """Return the file system and the root's path in it. Connects once per process: connections die in a fork."""
        if self._connection is None or self._connection[0] != os.getpid():
            self._connection = os.getpid(), *connect(self.url)
        return self._connection[1:]

    def __reduce__(self) -> tuple[type[Remote], tuple[str, bool]]:
        return Remote, (self.url.reveal(), self.reached)


class _Patience(threading.local):
    seconds: float | None = None


def _allow() -> None:
    """The guard of a write that no lock protects."""


def _hopeless(error: Exception) -> bool:
    return (
        isinstance(error, HOPELESS)
        or type(error).__name__ in HOPELESS_NAMES
        or (isinstance(error, OSError) and error.errno in HOPELESS_ERRNO)
    )


def _reason(error: Exception) -> str:
    """Return the first line of an error without secrets, at most 200 characters."""
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    line = redact((str(error).strip() or type(error).__name__).splitlines()[0])
    return line if len(line) <= 200 else line[:197] + "..."


def _advice(url: str) -> str:
    if is_s3(url):
        variables = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if not Amazon's, AWS_ENDPOINT_URL"
        return f"pip install 'kdtune[s3]'; {variables}"
    return "a folder, or a URL that fsspec knows, with its package installed"
