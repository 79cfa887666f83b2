"""The digest of a data set: its catalog and the bytes of its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from kdtune.clips.catalog import video_path
from kdtune.config.key import digest
from kdtune.errors import DataError, Problem
from kdtune.files import read_json, write_json
from kdtune.store import Store


def manifest_digest(catalog: pd.DataFrame, root: Path, store: Store) -> str:
    """The digest of (video, label, action, split, group, SHA-256 of the file) of every row of the catalog.

    File hashes are kept in the store and taken from there while a file's size, times and inode are the same: copies
    that keep the time of the last writing (cp -p, rsync -t) cannot keep the time of the last change (ctime).
    Raises DataError where a file cannot be read.
    """
    root = Path(root).absolute()
    record = store.manifest(digest(str(root)))
    known = (read_json(record) or {}).get("files", {})
    files = {}
    for video in tqdm(catalog["video"], desc="hashing videos", unit="video", disable=None):
        try:
            path = video_path(root, video)
            stat = path.stat()
            entry = known.get(video)
            marks = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
            if entry is None or entry[:-1] != marks:
                with path.open("rb") as file:
                    entry = [*marks, hashlib.file_digest(file, "sha256").hexdigest()]
        except OSError as error:
            raise DataError([Problem(str(root / video), f"cannot be read: {error.strerror}")]) from None
        files[video] = entry
    if any(known.get(video) != entry for video, entry in files.items()):
        # Other splits of the same root have other videos: theirs stay.
        write_json(record, {"root": str(root), "files": known | files})
    rows = catalog[["video", "label", "action", "split", "group"]].values.tolist()
    return digest([[*row, files[row[0]][-1]] for row in rows])
