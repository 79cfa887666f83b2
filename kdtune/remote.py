"""The objects of a store behind an fsspec URL (s3://bucket/path, …): written whole, listed, created once.

An attempt that fails for a moment is repeated with growing pauses for at most `patience_s`; what no patience mends (no
such bucket, no permission, no package for the protocol) is refused at once. Both in one message that names the URL.
fsspec, and what it needs for the protocol, is imported with the first request.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from kdtune.errors import Problem, StoreError
from kdtune.files import disk_full
from kdtune.urls import SecretUrl, redact

#: An outage is borne for so long, in seconds; before anything was ever reached, only for a moment.
PATIENCE_S, FIRST_PATIENCE_S = 120.0, 3.0
#: Between two attempts: at first, and at most, in seconds.
PAUSE_S, MAX_PAUSE_S = 0.5, 15.0

#: What more attempts do not mend.
HOPELESS = (PermissionError, ImportError, ValueError, NotImplementedError)
HOPELESS_ERRNO = {errno.EINVAL, errno.EPERM, errno.ENOSYS}
HOPELESS_NAMES = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError"}

#: Name → version, which is another one whenever the object was written.
Listing = dict[str, str]
Made = TypeVar("Made")


class Remote:
    """One URL. Names are relative to it, with slashes."""

    def __init__(self, url: str, reached: bool = False) -> None:
        self.url, self.reached = SecretUrl(url.rstrip("/")), reached
        self._patience = _Patience()
        self.guards: list[Callable[[], None]] = []
        """Raise StoreError where this process must publish no more: a lock of its own was taken over (lease.py)."""
        self._connection: tuple[int, Any, str] | None = None

    # ---- requests ----------------------------------------------------------------------------------------------------

    def listing(self, folder: str) -> Listing:
        """The objects of a folder, without those of folders in it; empty where there is none."""
        try:
            found = self._try("read", lambda fs, root: fs.ls(f"{root}/{folder}", detail=True))
        except FileNotFoundError:
            return {}
        return {info["name"].rsplit("/", 1)[-1]: _version(info) for info in found if _is_file(info)}

    def tree(self, folder: str) -> dict[str, Listing]:
        """Every folder anywhere below `folder` → its objects, in as few requests as the protocol allows."""

        def ask(fs: Any, root: str) -> list[tuple[str, Any]]:
            found = fs.find(f"{root}/{folder}", detail=True)
            return [(name.removeprefix(root).strip("/"), info) for name, info in found.items() if _is_file(info)]

        listings: dict[str, Listing] = {}
        with suppress(FileNotFoundError):
            for name, info in self._try("read", ask):
                parent, _, own = name.rpartition("/")
                listings.setdefault(parent, {})[own] = _version(info)
        return listings

    def read(self, name: str) -> bytes | None:
        """The content of an object, or None where there is none."""
        try:
            return self._try("read", lambda fs, root: fs.cat_file(f"{root}/{name}"))
        except FileNotFoundError:
            return None

    def get(self, name: str, path: Path) -> bool:
        """Copy an object to the file `path`, whole; False where there is no such object. Raises OSError of the disk."""
        path.parent.mkdir(parents=True, exist_ok=True)
        copy = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            self._try("read", lambda fs, root: fs.get_file(f"{root}/{name}", str(copy)))
            with copy.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(copy, path)
        except FileNotFoundError:
            return False
        finally:
            copy.unlink(missing_ok=True)
        return True

    def put(self, path: Path, name: str) -> None:
        """Make an object of a file, or write it anew: readers see the old one or the new one."""
        path.stat()  # raises FileNotFoundError: a bucket that is missing is another matter
        self._write(lambda fs, root: fs.put_file(str(path), f"{root}/{name}"))

    def write(self, name: str, content: bytes) -> None:
        self._write(lambda fs, root: fs.pipe_file(f"{root}/{name}", content))

    def create(self, name: str, content: bytes) -> bool:
        """Make an object where there is none; whether it is ours now. `content` must be nobody else's.

        S3 does that in one step (If-None-Match); where a protocol cannot, two may both be told that they made it.
        """

        def ask(fs: Any, root: str) -> None:
            try:
                fs.pipe_file(f"{root}/{name}", content, mode="create")
            except OSError as error:
                # s3fs knows Amazon's answer to a condition that does not hold; others' it takes for a bad request.
                answer = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
                if answer != "PreconditionFailed" and not isinstance(error, FileExistsError):
                    raise

        self._write(ask)
        # Read, for an answer that was lost makes the second attempt find the first one's object.
        return self.read(name) == content

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._try("written", lambda fs, root: fs.rm_file(f"{root}/{name}"))

    def check_writable(self) -> None:
        """Raises StoreError where objects cannot be made here; warns where two machines might both make the same."""
        probe = f"locks/probe-{uuid.uuid4().hex}"
        try:
            self.create(probe, b"first")
            if self.create(probe, b"second"):
                what = (
                    "its server does not refuse to create what is there: run one sweep and one worker at a time on it"
                )
                print(f"kdtune: {self.url}: {what}", file=sys.stderr)
        finally:
            with suppress(StoreError), self.patience(0.0):
                self.remove(probe)

    # ---- patience ----------------------------------------------------------------------------------------------------

    @contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        """Within it this thread bears an outage for so long."""
        before, self._patience.seconds = self._patience.seconds, seconds
        try:
            yield
        finally:
            self._patience.seconds = before

    def _write(self, action: Callable[[Any, str], object]) -> None:
        try:
            self._try("written", action)
        except FileNotFoundError as error:
            raise StoreError([Problem(str(self.url), "there is no such bucket or folder to write to")]) from error

    def _try(self, verb: str, action: Callable[[Any, str], Made]) -> Made:
        """`action` of the file system and the root in it. FileNotFoundError and a full disk here are the caller's."""
        began, pause, told = time.monotonic(), PAUSE_S, False
        patience = PATIENCE_S if self._patience.seconds is None else self._patience.seconds
        if not self.reached:
            patience = min(patience, FIRST_PATIENCE_S)
        while True:
            try:
                made = action(*self._connected())
            except FileNotFoundError:
                self.reached = True
                raise
            except Exception as error:
                if disk_full(error):
                    raise
                reason = _reason(error)
                waited = time.monotonic() - began
                if _hopeless(error):
                    what = f"cannot be {verb}: {reason}"
                    raise StoreError([Problem(str(self.url), what, _advice(str(self.url)))]) from error
                if waited + pause > patience:
                    what = f"cannot be reached: {reason}; tried for {waited:.0f} s"
                    raise StoreError([Problem(str(self.url), what)]) from error
                if self.reached and not told:
                    what = f"cannot be reached ({reason}); trying for {patience:.0f} s"
                    print(f"kdtune: {self.url} {what}", file=sys.stderr)
                    told = True
                time.sleep(pause)
                pause = min(2 * pause, MAX_PAUSE_S)
            else:
                self.reached = True
                return made

    def _connected(self) -> tuple[Any, str]:
        """The file system and the root's path in it, once for each process: connections do not survive a fork."""
        if self._connection is None or self._connection[0] != os.getpid():
            import fsspec

            options = {"use_listings_cache": False, "skip_instance_cache": True, **_options(str(self.url))}
            fs, root = fsspec.core.url_to_fs(self.url.reveal(), **options)
            if hasattr(fs, "retries"):
                fs.retries = 1  # how often is ours to say
            self._connection = os.getpid(), fs, root.rstrip("/")
        return self._connection[1:]

    def __reduce__(self) -> tuple[type[Remote], tuple[str, bool]]:
        return Remote, (self.url.reveal(), self.reached)


class _Patience(threading.local):
    seconds: float | None = None


def _options(url: str) -> dict[str, Any]:
    """For S3: one attempt at a time, and no waiting for ever; what the user's fsspec configuration says goes first."""
    if not url.startswith(("s3://", "s3a://")):
        return {}
    from fsspec.config import conf

    config = {"retries": {"max_attempts": 0}, "connect_timeout": 5, "read_timeout": 30}
    return {"config_kwargs": config | conf.get("s3", {}).get("config_kwargs", {})}


def _is_file(info: dict[str, Any]) -> bool:
    """No folder, nor the mark of one: an object whose name ends with a slash."""
    return info["type"] == "file" and not info["name"].endswith("/")


def _version(info: dict[str, Any]) -> str:
    marks = ("size", "ETag", "etag", "md5Hash", "LastModified", "updated", "mtime", "created")
    return " ".join(str(info[mark]) for mark in marks if mark in info)


def _hopeless(error: Exception) -> bool:
    return (
        isinstance(error, HOPELESS)
        or type(error).__name__ in HOPELESS_NAMES
        or (isinstance(error, OSError) and error.errno in HOPELESS_ERRNO)
    )


def _reason(error: Exception) -> str:
    """The first line of an error, without secrets, cut to a readable length."""
    line = redact((str(error).strip() or type(error).__name__).splitlines()[0])
    return line if len(line) <= 200 else line[:197] + "..."


def _advice(url: str) -> str:
    if url.startswith(("s3://", "s3a://")):
        return (
            "pip install 'kdtune[s3]'; AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if not Amazon's, AWS_ENDPOINT_URL"
        )
    return "a folder, or a URL that fsspec knows, with its package installed"
