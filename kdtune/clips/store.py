"""The ClipStore: every frame of a data set, decoded and resized once, shared by all trials of a machine.

    frames.u8       raw uint8 RGB frames, video after video in the order of the catalog
    index.parquet   the catalog's columns, frames (count), offset (in frames), sha256 (of the video's frames), decoder
    refused.csv     video, reason: what is not in the index
    store.json      format, size, totals, manifest, digests, versions of the decoders

The folder's name hashes the manifest, the size of the frames, the format and the decoders. It is built beside its place
and renamed when complete, so a folder of that name is whole; later only lists of too short videos are added to it.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from kdtune.errors import DataError, Problem, StoreError
from kdtune.store import read_json, write_atomic, write_json

#: Of the folder's files; raised when an older kdtune could not read them or would read them wrongly.
FORMAT = 1


@dataclass(frozen=True)
class ClipStore:
    """One data set's frames on disk. Any number of processes may read it."""

    folder: Path
    index: pd.DataFrame
    """One row a video: the catalog's columns, frames, offset, sha256, decoder; row i belongs to `frames(i)`."""
    record: dict[str, Any] = field(repr=False)
    """What store.json holds."""

    @cached_property
    def actions(self) -> tuple[str, ...]:
        """The names of the labels 0, 1, …; empty for a class of which every video is refused."""
        named = dict(zip(self.index["label"].tolist(), self.index["action"].tolist(), strict=True))
        return tuple(named.get(label, "") for label in range(max(named) + 1))

    @classmethod
    def open(cls, folder: Path) -> ClipStore:
        """A finished store, its sizes and index checked. Raises StoreError where it is damaged."""
        folder = Path(folder)
        try:
            record = read_json(folder / "store.json")
            index_bytes = (folder / "index.parquet").read_bytes()
            size = (folder / "frames.u8").stat().st_size
        except (OSError, ValueError) as error:
            raise damaged(folder, [f"cannot be read: {error}"]) from None
        if record is None or record.get("format") != FORMAT:
            raise damaged(folder, [f"store.json must have format {FORMAT}, but got {record and record.get('format')}"])
        problems = []
        if size != record["bytes"]:
            problems.append(f"frames.u8 must have {record['bytes']} bytes, but has {size}")
        if hashlib.sha256(index_bytes).hexdigest() != record["index_sha256"]:
            problems.append("index.parquet is not the one that was written")
        if problems:
            raise damaged(folder, problems)
        return cls(folder, pd.read_parquet(io.BytesIO(index_bytes)), record)

    def __reduce__(self) -> tuple[Callable[[Path], ClipStore], tuple[Path]]:
        """Another process opens the folder itself; the mapped frames do not travel."""
        return ClipStore.open, (self.folder,)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames in pixels."""
        height, width = self.record["size"]
        return height, width

    @property
    def digest(self) -> str:
        """SHA-256 over every video's name, label and frames, in hex."""
        return self.record["digest"]

    @property
    def manifest(self) -> str:
        """The digest of the data set that this was decoded from."""
        return self.record["manifest"]

    @cached_property
    def _frames(self) -> np.ndarray:
        shape = (self.record["frames"], *self.size, 3)
        return np.memmap(self.folder / "frames.u8", dtype=np.uint8, mode="r", shape=shape)

    @cached_property
    def _spans(self) -> list[tuple[int, int]]:
        return [(o, o + n) for o, n in zip(self.index["offset"].tolist(), self.index["frames"].tolist(), strict=True)]

    def frames(self, i: int) -> np.ndarray:
        """The frames of row i of the index, (n, h, w, 3) uint8 RGB: a read-only view of the file, nothing is copied."""
        start, end = self._spans[i]
        return self._frames[start:end].view(np.ndarray)

    def verify(self) -> list[str]:
        """Read everything and name every video whose frames are not the ones that were decoded."""
        problems = []
        bar = tqdm(self.index["sha256"], desc="verifying frames", unit="video", disable=None, leave=False)
        for i, expected in enumerate(bar):
            if hashlib.sha256(self.frames(i).data).hexdigest() != expected:
                problems.append(f"the frames of {self.index['video'].iloc[i]} have changed")
        if chain(self.index) != self.digest:
            problems.append("the digest in store.json is not the one of index.parquet")
        return problems


def write_frames(
    folder: Path, videos: Iterable[tuple[dict[str, Any], np.ndarray, str]], columns: list[str]
) -> dict[str, Any]:
    """Write frames.u8 and index.parquet of a new store; returns what `write_record` is to say of them.

    A video is its row of the catalog, with these columns, its frames (n, h, w, 3) uint8, and what decoded them.
    """
    rows: list[dict[str, Any]] = []
    offset = size = 0
    with (folder / "frames.u8").open("wb") as file:
        for row, frames, decoder in videos:
            sha256 = hashlib.sha256(frames.data).hexdigest()
            rows.append({**row, "frames": len(frames), "offset": offset, "sha256": sha256, "decoder": decoder})
            offset += len(frames)
            size += file.write(frames.data)
        file.flush()
        os.fsync(file.fileno())
    index = pd.DataFrame(rows, columns=[*columns, "frames", "offset", "sha256", "decoder"])
    index_bytes = index.to_parquet(index=False)
    write_atomic(folder / "index.parquet", index_bytes)
    totals = {"videos": len(index), "frames": offset, "bytes": size, "digest": chain(index)}
    return {**totals, "index_sha256": hashlib.sha256(index_bytes).hexdigest()}


def write_record(folder: Path, size: tuple[int, int], record: dict[str, Any]) -> None:
    """Write store.json, with which a store is complete."""
    write_json(folder / "store.json", {"format": FORMAT, "size": list(size), **record})


def usable(clips: ClipStore, min_frames: int) -> pd.DataFrame:
    """The rows of the index with at least `min_frames` frames, with their row numbers for `ClipStore.frames`.

    Leaves the others in too_short_<min_frames>.csv in the store's folder. Raises DataError where all are too short.
    """
    long_enough = clips.index["frames"] >= min_frames
    path = clips.folder / f"too_short_{min_frames}.csv"
    if not path.exists():
        short = clips.index.loc[~long_enough, ["video", "frames"]]
        reasons = [f"has {frames} frames, a sample needs {min_frames}" for frames in short["frames"]]
        write_atomic(path, short.assign(reason=reasons).to_csv(index=False))
        if len(short) > 0:
            print(f"clips: too short for {min_frames} frames: {len(short):,} (list: {path})", file=sys.stderr)
    if not long_enough.any():
        longest = clips.index["frames"].max()
        what = f"needs videos of at least {min_frames} frames, the longest has {longest}"
        raise DataError([Problem("clip.frames", what, "fewer frames a clip or, for tuples, a smaller clip.interval")])
    return clips.index[long_enough]


def chain(index: pd.DataFrame) -> str:
    """SHA-256 over every video's name, label and frames' SHA-256, in hex."""
    lines = (f"{row.video}\t{row.label}\t{row.sha256}\n" for row in index.itertuples())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def damaged(folder: Path, problems: list[str]) -> StoreError:
    """The error for a store whose content is not what was written."""
    remedy = "remove this folder; it is made again when it is next needed"
    return StoreError([Problem(str(folder), problem) for problem in problems] + [Problem(str(folder), remedy)])
