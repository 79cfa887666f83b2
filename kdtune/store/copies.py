"""What is written once and never changes, between a remote store and this machine: targets' blocks, frames."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kdtune.errors import Problem, StoreError
from kdtune.names import is_name
from kdtune.store.remote import Remote

#: The last object of a folder that is published as a whole: {"files": {name: SHA-256}}.
WHOLE = "whole.json"
THREADS = 16


def fetch_missing(remote: Remote, folder: str, to: Path) -> None:
    """Bring the objects of `folder` of which no file is in `to`."""
    missing = [name for name in remote.listing(folder) if not (to / name).exists()]
    if missing:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda name: remote.get(f"{folder}/{name}", to / name), missing))


def fetch_whole(remote: Remote, folder: str, to: Path) -> bool:
    """Make `to` of a folder that was published whole, each file held against its SHA-256; False where there is none.

    Raises StoreError where the remote's objects are damaged, and OSError of the disk.
    """
    content = remote.read(f"{folder}/{WHOLE}")
    if content is None:
        return False
    copy = to.with_name(f".{to.name}.copy")
    shutil.rmtree(copy, ignore_errors=True)
    try:
        for name, sha256 in _digests(content).items():
            if not remote.get(f"{folder}/{name}", copy / name) or _sha256(copy / name) != sha256:
                what = f"its {name} is damaged; remove the folder there, and who has the videos publishes it again"
                raise StoreError([Problem(f"{remote.url}/{folder}", what)])
        copy.rename(to)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return True


def publish_whole(remote: Remote, folder: str, place: Path, names: Iterable[str], telling: str) -> None:
    """Publish these files of a folder that is finished; nothing where the remote has the same.

    `telling` is the one of them by which two folders are known to be the same.
    """
    content = remote.read(f"{folder}/{WHOLE}")
    if content is not None and _digests(content).get(telling) == _sha256(place / telling):
        return
    digests = {name: _sha256(place / name) for name in names}
    remote.remove(f"{folder}/{WHOLE}")
    for name in digests:
        remote.put(place / name, f"{folder}/{name}")
    remote.write(f"{folder}/{WHOLE}", json.dumps({"files": digests}, indent=1).encode())


def _digests(content: bytes) -> dict[str, str]:
    """File → SHA-256 of a folder that was published whole; a damaged list names the list itself, which is refused."""
    try:
        files = json.loads(content)["files"]
        if files and all(is_name(name) and isinstance(digest, str) for name, digest in files.items()):
            return dict(files)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        pass
    return {WHOLE: "damaged"}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
