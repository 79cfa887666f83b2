"""Requests to the file system behind a URL: each has a time limit, and a write may depend on what it replaces.

A conditional write names the version that it replaces, or demands that there is none. S3 compares and writes in one
step (If-Match, If-None-Match), so a request that arrives late changes nothing that was written since. Other protocols
have no such condition: the object's version is compared before the write.

fsspec and its package for the protocol are imported with the first connection.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kdtune.urls import SecretUrl

#: Seconds to connect, until the next byte of an answer, and for a write of up to PART_BYTES with its answer.
CONNECT_S, READ_S, WRITE_S = 5, 15, 20.0
#: Seconds for a request before a URL's first answer, and for a part of a large object (a part changes no object yet).
FIRST_S, PART_S = 6.0, 180.0
#: Larger objects are uploaded in parts of at least PART_BYTES. S3 accepts 10,000 parts.
PART_BYTES, MOST_PARTS, PART_THREADS = 8 * 2**20, 9_000, 4


class Changed(Exception):
    """The object is not in the version that the write was to replace."""


#: The write replaces any version, or none. No version reads like this.
ANY = "*"
#: What a write replaces: a version from `version`, None for no object, or ANY.
Over = str | None


def connect(url: SecretUrl) -> tuple[Any, str]:
    """Return the file system of a URL, and the URL's path in it."""
    import fsspec

    options = {"use_listings_cache": False, "skip_instance_cache": True, **_options(str(url))}
    fs, root = fsspec.core.url_to_fs(url.reveal(), **options)
    if hasattr(fs, "retries"):
        fs.retries = 1  # Remote repeats requests itself
    return fs, root.rstrip("/")


def is_s3(url: str) -> bool:
    return url.startswith(("s3://", "s3a://"))


def _options(url: str) -> dict[str, object]:
    """Return S3 options for single attempts with time limits. The user's fsspec configuration takes precedence."""
    if not is_s3(url):
        return {}
    from fsspec.config import conf

    config = {"retries": {"max_attempts": 0}, "connect_timeout": CONNECT_S, "read_timeout": READ_S}
    return {"config_kwargs": config | conf.get("s3", {}).get("config_kwargs", {})}


def version(info: Mapping[str, object]) -> str:
    """Return a text that changes whenever the object is written."""
    marks = ("size", "ETag", "etag", "md5Hash", "LastModified", "updated", "mtime", "created")
    found = (info[mark] for mark in marks if mark in info)
    # An in-memory file system gives the same time as either of two types.
    return " ".join(str(datetime.fromtimestamp(mark, UTC) if isinstance(mark, float) else mark) for mark in found)


class Request:
    """One attempt at one action. Names are relative to the URL; `first` means that the URL has never answered yet."""

    def __init__(self, fs: Any, root: str, first: bool) -> None:
        self.fs, self.root, self._first = fs, root, first

    def __call__(self, method: str, name: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the file system on an object or folder."""
        return getattr(self.fs, method)(f"{self.root}/{name}", *arguments, **options, **self._limit(None))

    def create(self, name: str, content: bytes) -> None:
        """Create an object. Raises Changed if one exists, as far as the protocol can tell."""
        if self._is_s3:
            return self.write(name, content, None)
        try:
            self.fs.pipe_file(f"{self.root}/{name}", content, mode="create", **self._limit(WRITE_S))
        except FileExistsError as error:
            raise Changed from error

    def write(self, name: str, content: bytes | Path, over: Over, ready: Callable[[], None] = lambda: None) -> None:
        """Write an object atomically. `ready` is called again after a large transfer, and may raise to cancel it.

        Raises Changed if the object is not in the version `over`.
        """
        if self._is_s3:
            try:
                return self._put(name, content, over, ready)
            except OSError as error:
                if error.errno != errno.ENOSYS or over in (ANY, None):
                    raise
            # The server does not support If-Match.
            if self.version(name) != over:
                raise Changed
            return self._put(name, content, ANY, ready)
        if over != ANY and self.version(name) != over:
            raise Changed
        if isinstance(content, Path):
            self.fs.put_file(str(content), f"{self.root}/{name}", **self._limit(None))
        else:
            self.fs.pipe_file(f"{self.root}/{name}", content, **self._limit(WRITE_S))

    def remove(self, name: str, over: str | None = None) -> None:
        """Remove an object. Raises Changed if it is not in the version `over`, FileNotFoundError if there is none."""
        if self._is_s3:
            with _conditional():
                self._s3("delete_object", name, over=over or ANY)
        elif over is not None and self.version(name) != over:
            raise Changed
        else:
            self("rm_file", name)

    def version(self, name: str) -> str | None:
        """Return the object's version, or None if there is no object."""
        try:
            info = self("info", name)
        except FileNotFoundError:
            return None
        return version(info) if info["type"] == "file" else None

    # ---- S3 ----------------------------------------------------------------------------------------------------------

    @property
    def _is_s3(self) -> bool:
        return hasattr(self.fs, "call_s3")

    def _s3(self, method: str, name: str, *, limit: float = WRITE_S, over: Over = ANY, **arguments: Any) -> Any:
        bucket, key, _ = self.fs.split_path(f"{self.root}/{name}")
        return self.fs.call_s3(method, Bucket=bucket, Key=key, **_condition(over), **arguments, **self._limit(limit))

    def _put(self, name: str, content: bytes | Path, over: Over, ready: Callable[[], None]) -> None:
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        with _conditional():
            if isinstance(content, Path) and size > PART_BYTES:
                self._put_parts(name, content, size, over, ready)
            else:
                body = content.read_bytes() if isinstance(content, Path) else content
                self._s3("put_object", name, over=over, Body=body)

    def _put_parts(self, name: str, path: Path, size: int, over: Over, ready: Callable[[], None]) -> None:
        upload = self._s3("create_multipart_upload", name)["UploadId"]
        length = max(PART_BYTES, -(-size // MOST_PARTS))

        def send(number: int) -> dict[str, int | str]:
            with path.open("rb") as file:
                file.seek((number - 1) * length)
                body = file.read(length)
            answer = self._s3("upload_part", name, limit=PART_S, UploadId=upload, PartNumber=number, Body=body)
            return {"PartNumber": number, "ETag": answer["ETag"]}

        try:
            with ThreadPoolExecutor(PART_THREADS) as pool:
                parts = {"Parts": list(pool.map(send, range(1, -(-size // length) + 1)))}
            ready()
            self._s3("complete_multipart_upload", name, over=over, UploadId=upload, MultipartUpload=parts)
        except BaseException:
            with suppress(Exception):  # otherwise the server's rule for abandoned uploads removes it
                self._s3("abort_multipart_upload", name, UploadId=upload)
            raise

    def _limit(self, seconds: float | None) -> dict[str, float]:
        """Return the time limit as an option for fsspec's asynchronous file systems; the others take none.

        The connection's own limits do not suffice: aiohttp waits without limit for the server's "100 Continue" before
        it sends the body of an upload.
        """
        if not getattr(self.fs, "async_impl", False):
            return {}
        limits = [limit for limit in (seconds, FIRST_S if self._first else None) if limit is not None]
        return {"timeout": min(limits)} if limits else {}


def _condition(over: Over) -> dict[str, str]:
    """Return the condition as arguments for S3; none for a version without an ETag, which S3 cannot compare."""
    if over is None:
        return {"IfNoneMatch": "*"}
    tag = re.search(r'"[^"]*"', over)
    return {} if tag is None else {"IfMatch": tag[0]}


@contextmanager
def _conditional() -> Iterator[None]:
    """Raise Changed if S3 answers that a condition does not hold. s3fs turns that answer into an OSError."""
    try:
        yield
    except OSError as error:
        code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
        if code in ("PreconditionFailed", "NoSuchKey"):  # NoSuchKey: there is no object to compare
            raise Changed from error
        raise
