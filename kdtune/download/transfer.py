"""Download one file over HTTP, so that an interrupted download resumes.

NAME.part       the bytes so far
NAME.part.json  their address, and what identifies the version of the file there: size, ETag or Last-Modified

A request for the rest carries `If-Range`, so that a server whose file has changed sends the new file from its first
byte. A server that cannot resume does the same.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kdtune import __version__
from kdtune.errors import DataError, Problem, StoreError
from kdtune.parse import first_line
from kdtune.store.files import read_json, write_json

CHUNK = 1 << 20
TIMEOUT_S = 60
#: Attempts without a new byte before an address is given up, and the seconds before each.
WAITS_S = (0, 1, 5, 20)
#: HTTP statuses after which the same request may succeed.
TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
#: First bytes of archives, by suffix.
MAGIC = {".rar": b"Rar!\x1a\x07", ".zip": b"PK\x03\x04"}

Say = Callable[[str], object]


class Unavailable(Exception):
    """An address does not give the file; the text is the reason."""


class _Cut(Exception):
    """The connection broke, or the server asks to try later."""


@dataclass(frozen=True)
class Version:
    """The identity of the file at an address."""

    url: str
    size: int | None
    validator: str
    """ETag or date for If-Range; empty where the server gives neither."""


def download(urls: tuple[str, ...], target: Path, say: Say, *, waits_s: tuple[float, ...] = WAITS_S) -> str:
    """Download the file at the first address that gives it to `target`; return that address.

    Resumes `target`.part if the file at its address is still the same. Raises DataError with a problem for each address
    where none gives the file, and OSError where it cannot be written.
    """
    known = _known(target)
    begun = known is not None and known.url in urls and _have(known.url, target) > 0
    problems = []
    for url in (known.url,) if begun and known is not None else urls:  # another address would begin again
        try:
            _from(url, target, say, waits_s)
        except Unavailable as error:
            problems.append(Problem(url, str(error)))
        else:
            _part(target).replace(target)
            _version_file(target).unlink(missing_ok=True)
            return url
    here = f"what has come is kept in {_part(target)}; " if _part(target).exists() else ""
    what = f"cannot be downloaded now; {here}run the same command again later"
    raise DataError([*problems, Problem(target.name, f"{what}, or download it with a browser and save it as {target}")])


def sha256(path: Path, what: str = "") -> str:
    """Return the SHA-256 of a file, in hex. With `what`, a terminal shows the progress."""
    digest = hashlib.sha256()
    total = path.stat().st_size
    bar = tqdm(total=total, desc=what, unit="B", unit_scale=True, disable=None if what else True)
    with path.open("rb") as file, bar:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _from(url: str, target: Path, say: Say, waits_s: tuple[float, ...]) -> None:
    """Bring `target`.part to its end. Raises Unavailable where the address gives no more bytes."""
    attempts = 0
    while True:
        have = _have(url, target)
        time.sleep(waits_s[attempts])
        try:
            _request(url, target, have, say)
            return
        except _Cut as cut:
            attempts = 0 if _have(url, target) > have else attempts + 1
            if attempts == len(waits_s):
                raise Unavailable(f"{cut}, {attempts} times without a new byte") from None
            say(f"{target.name}: {cut}; trying again")


def _request(url: str, target: Path, have: int, say: Say) -> None:
    """Request the bytes from `have` on and append them. Raises _Cut where the connection ends before the file."""
    known = _known(target)
    headers = {"User-Agent": f"kdtune/{__version__}", "Accept-Encoding": "identity"}
    if have and known is not None:
        headers |= {"Range": f"bytes={have}-", "If-Range": known.validator}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and known is not None and have == known.size:
                return  # the last byte had arrived before the interruption
            if error.code == 416:
                _part(target).unlink(missing_ok=True)
                raise _Cut("the file there is shorter than what was downloaded") from None
            text = f"the server answers {error.code} {error.reason}"
            raise (_Cut(text) if error.code in TEMPORARY else Unavailable(text)) from None
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        raise _failed(error) from None
    with answer:
        _receive(answer, url, target, have, say)


def _receive(answer: Any, url: str, target: Path, have: int, say: Say) -> None:
    if answer.headers.get_content_type() == "text/html":
        raise Unavailable("the server answers with a page, not with the file: too many downloads today, perhaps")
    resumes = answer.status == 206 and _begins_at(answer) == have
    if have and not resumes:
        changed = answer.headers.get("Accept-Ranges") == "bytes" or answer.status == 206
        why = "the file has changed on the server" if changed else "the server cannot resume"
        say(f"{target.name}: {why}: it is downloaded from its beginning")
    if answer.status == 206 and not resumes:
        _part(target).unlink(missing_ok=True)
        raise _Cut("the server sends another part of the file")
    begin = have if resumes else 0
    length = answer.headers.get("Content-Length")
    size = begin + int(length) if length is not None and length.isdecimal() else None
    if not resumes:
        _part(target).unlink(missing_ok=True)
        write_json(_version_file(target), asdict(Version(url, size, _validator(answer))))
    with (
        _part(target).open("ab") as file,
        tqdm(total=size, initial=begin, desc=target.name, unit="B", unit_scale=True, disable=None) as bar,
    ):
        while chunk := _chunk(answer):
            if file.tell() == 0 and not chunk.startswith(magic := MAGIC.get(target.suffix, b"")):
                raise Unavailable(f"the server sends no {target.suffix} archive, but {chunk[: len(magic)]!r}…")
            file.write(chunk)
            bar.update(len(chunk))
        end = file.tell()
    if size is not None and end < size:
        raise _Cut(f"the connection ended after {end:,} of {size:,} bytes")


def _chunk(answer: Any) -> bytes:
    try:
        return bytes(answer.read1(CHUNK))
    except (OSError, http.client.HTTPException) as error:
        raise _failed(error) from None


def _failed(error: Exception) -> Exception:
    """Return a failed connection as an error: temporary, or not."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Unavailable(f"its certificate cannot be verified ({reason.verify_message})")
    if isinstance(reason, socket.gaierror):
        return Unavailable(f"the host is not found ({first_line(reason)})")
    return _Cut(f"the connection failed ({first_line(reason) if isinstance(reason, BaseException) else reason})")


def _begins_at(answer: Any) -> int | None:
    """Return the first byte of a partial answer: Content-Range: bytes FIRST-LAST/SIZE."""
    unit, _, rest = (answer.headers.get("Content-Range") or "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdecimal() else None


def _validator(answer: Any) -> str:
    etag = answer.headers.get("ETag") or ""
    return etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified") or ""


def _have(url: str, target: Path) -> int:
    """Return how many bytes of the file at `url` are there; 0, and no part, where it cannot be resumed."""
    part, known = _part(target), _known(target)
    size = part.stat().st_size if part.exists() else 0
    if known is None or known.url != url or not known.validator:
        return 0
    return size


def _known(target: Path) -> Version | None:
    try:
        found = read_json(_version_file(target), ("url", "size", "validator"))
    except StoreError:  # damaged: the download begins again
        return None
    return None if found is None else Version(found["url"], found["size"], found["validator"])


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _version_file(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")
