"""The digest of a data set: its catalog and the bytes of its files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from kdtune.clips.catalog import video_path
from kdtune.clips.video.sequence import frames_of
from kdtune.config.key import digest
from kdtune.errors import DataError, Problem
from kdtune.store import StoreFiles
from kdtune.store.files import read_json, write_json
from kdtune.store.seal import passed_over

#: Video → [size, mtime, ctime, inode, SHA-256 in hex] of its file. A folder of frames has, instead of the file's state,
#: the number and bytes of its frames and a digest of their states.
Files = dict[str, list[Any]]


def manifest_digest(catalog: pd.DataFrame, root: Path, store: StoreFiles) -> str:
    """Return the digest of (video, label, action, split, group, SHA-256 of the file) of every row of the catalog.

    Raises DataError where a file cannot be read.
    """
    return digest_of(catalog, file_hashes(catalog, root, store))


def file_hashes(catalog: pd.DataFrame, root: Path, store: StoreFiles) -> list[str]:
    """Return the SHA-256 of each row's file, in hex.

    The store caches them, and reuses one as long as the file's size, times and inode are unchanged: copies that
    preserve mtime (cp -p, rsync -t) cannot preserve ctime. Raises DataError where a file cannot be read.
    """
    root = Path(root).absolute()
    record, known = _recorded(root, store)
    files = {}
    for video in tqdm(catalog["video"], desc="hashing videos", unit="video", disable=None):
        try:
            path = video_path(root, video)
            entry, state = known.get(video), _file_state(path)
            if entry is None or entry[:-1] != state:
                entry = [*state, _sha256(path)]
        except OSError as error:
            raise DataError([Problem(str(root / video), f"cannot be read: {error.strerror}")]) from None
        files[video] = entry
    if any(known.get(video) != entry for video, entry in files.items()):
        # Keep the entries of other splits of the same root.
        write_json(record, {"root": str(root), "files": known | files})
    return [files[video][-1] for video in catalog["video"]]


def recorded_hashes(catalog: pd.DataFrame, root: Path, store: StoreFiles) -> list[str] | None:
    """Return the hashes that the store has cached for every file; None where one is missing or its file has changed.

    Hashes and writes nothing.
    """
    root = Path(root).absolute()
    _, known = _recorded(root, store)
    for video in catalog["video"]:
        try:
            if video not in known or known[video][:-1] != _file_state(video_path(root, video)):
                return None
        except OSError:
            return None
    return [known[video][-1] for video in catalog["video"]]


def recorded_digest(catalog: pd.DataFrame, root: Path, store: StoreFiles) -> str | None:
    """Return the manifest's digest from the store's cached hashes; None where they are missing or outdated."""
    hashes = recorded_hashes(catalog, root, store)
    return None if hashes is None else digest_of(catalog, hashes)


def digest_of(catalog: pd.DataFrame, hashes: list[str]) -> str:
    """Return the manifest's digest of a catalog whose files have these hashes."""
    rows = catalog[["video", "label", "action", "split", "group"]].values.tolist()
    return digest([[*row, sha256] for row, sha256 in zip(rows, hashes, strict=True)])


def _recorded(root: Path, store: StoreFiles) -> tuple[Path, Files]:
    """Return the store's record of a root's files: its path and its entries."""
    record = store.manifest(digest(str(root)))
    found = passed_over(lambda: read_json(record, ("files",)), None)  # lost entries are hashed again
    return record, {} if found is None else found["files"]


def _sha256(path: Path) -> str:
    """Return the SHA-256, in hex, of a file, or of a folder's frames: their numbers from the first, and their bytes."""
    if not os.path.isdir(path):
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    frames = hashlib.sha256()
    for number, frame in _pictures(path):
        frames.update(f"{number} {_sha256(frame)}\n".encode())
    return frames.hexdigest()


def _file_state(path: Path) -> list[Any]:
    if not os.path.isdir(path):
        stat = path.stat()
        return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    states = [[frame.name, *_file_state(frame)] for _, frame in _pictures(path)]
    return [len(states), sum(state[1] for state in states), digest(states)]


def _pictures(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield each frame with its number from the first, and each other picture, which spoils the folder, by its name."""
    found = frames_of(folder)
    for number, name in zip(found.numbers, found.names, strict=True):
        yield str(number - found.numbers[0]), folder / name
    for name in found.strangers:
        yield name, folder / name
