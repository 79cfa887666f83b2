"""Copy files that never change between a remote store and this machine: blocks of targets, and frames."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kdtune.errors import StoreError
from kdtune.names import is_name
from kdtune.store.files import file_sha256
from kdtune.store.remote import Remote

#: The object that completes a folder published as a whole: {"files": {name: SHA-256}}. It is written last.
WHOLE = "whole.json"
THREADS = 16


def fetch_missing(remote: Remote, folder: str, to: Path) -> None:
    """Download the objects of `folder` that `to` lacks."""
    missing = [name for name in remote.listing(folder) if not (to / name).exists()]
    if missing:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda name: remote.get(f"{folder}/{name}", to / name), missing))


def fetch_whole(remote: Remote, folder: str, to: Path) -> bool:
    """Download a folder that was published as a whole to `to`, checking each SHA-256; return False if there is none.

    Raises StoreError if the remote's objects are damaged, and OSError if the disk fails.
    """
    content = remote.read(f"{folder}/{WHOLE}")
    if content is None:
        return False
    copy = to.with_name(f".{to.name}.copy")
    shutil.rmtree(copy, ignore_errors=True)
    try:
        for name, sha256 in _digests(content).items():
            if not remote.get(f"{folder}/{name}", copy / name) or file_sha256(copy / name) != sha256:
                what = f"its {name} is damaged; remove the folder there: a machine with the videos publishes it again"
                raise StoreError.at(f"{remote.url}/{folder}", what)
        copy.rename(to)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return True


def publish_whole(remote: Remote, folder: str, place: Path, names: Iterable[str], identity_file: str) -> None:
    """Upload the files `names` of a finished folder, unless the remote already has this folder.

    Two folders are the same if their `identity_file` is.
    """
    content = remote.read(f"{folder}/{WHOLE}")
    if content is not None and _digests(content).get(identity_file) == file_sha256(place / identity_file):
        return
    digests = {name: file_sha256(place / name) for name in names}
    remote.remove(f"{folder}/{WHOLE}")
    for name in digests:
        remote.put(place / name, f"{folder}/{name}")
    remote.write(f"{folder}/{WHOLE}", json.dumps({"files": digests}, indent=1).encode())


def _digests(content: bytes) -> dict[str, str]:
    """Return file → SHA-256 of a folder published as a whole.

    For a damaged list, return an entry that no file can match, so that the caller refuses the folder.
    """
    try:
        files = json.loads(content)["files"]
        if files and all(is_name(name) and isinstance(digest, str) for name, digest in files.items()):
            return dict(files)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        pass
    return {WHOLE: "damaged"}
