"""The ClipStore: every frame of a data set, decoded and resized once, shared by all trials of a machine.

    frames.u8       raw tier: uint8 RGB frames, video after video in the order of the catalog
    frames.jpeg     jpeg tier: one JPEG per frame in the same order; frames.npy says where each begins (see tiers.py)
    index.parquet   the catalog's columns, frames (count), offset (in frames), sha256 (of the video's bytes), decoder
    refused.csv     video, reason: the videos that are not in the index
    store.json      format, size, tier, totals, manifest, digests, versions of the decoders and of the reading rules
    verified.json   size and times of the big file at its last check against the SHA-256s (see repair.py)

The folder's name hashes the manifest, frame size, format, tier, decoders and version of the reading rules. The folder
is built beside its place (writing.py) and renamed when complete, so a folder of that name is whole. Later changes only
add lists of videos that are too short and repair videos that were damaged on the disk. Stores built by other rules have
other names and are left alone.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from pyarrow.parquet import ParquetFile

from kdtune.clips.frames.tiers import OFFSETS, JpegReader, RawReader, Reader, Tier, missing_codec
from kdtune.errors import DamageError, DataError, Problem, StoreError
from kdtune.parse import JsonObject
from kdtune.store.files import read_json, write_atomic

log = logging.getLogger(__name__)

#: Version of the folder's file formats. Raise it when older code could not read them, or would read them wrongly.
FORMAT = 1


@dataclass(frozen=True)
class ClipStore:
    """One data set's frames on disk. Any number of processes may read it."""

    folder: Path
    index: pd.DataFrame
    """One row per video: the catalog's columns, frames, offset, sha256, decoder. `clip(i, …)` reads row i."""
    record: JsonObject = field(repr=False)
    """Content of store.json."""

    @cached_property
    def actions(self) -> tuple[str, ...]:
        """Names of the labels 0, 1, …; empty for a class whose videos are all refused."""
        named = dict(zip(self.index["label"].tolist(), self.index["action"].tolist(), strict=True))
        return tuple(named.get(label, "") for label in range(max(named) + 1))

    @classmethod
    def open(cls, folder: Path) -> ClipStore:
        """Open a finished store and check its sizes and index.

        Raises StoreError where it is missing or damaged, or its JPEGs need another version of simplejpeg.
        """
        clips, problems = cls.look(folder)
        if problems:
            raise damaged(clips.folder, problems)
        if clips.tier.name == "jpeg":
            _same_codec(clips)
        return clips

    @classmethod
    def look(cls, folder: Path) -> tuple[ClipStore, list[str]]:
        """Return a store read from its records, and what is wrong with its big file.

        Raises StoreError where the store is missing or its records are damaged.
        """
        folder = Path(folder)
        if not folder.is_dir():
            what = "does not exist here: every machine of a cluster must see the store under the same path"
            raise StoreError([Problem(str(folder), what, "or make it here with `data prepare`")])
        try:
            record = read_json(folder / "store.json")
            index_bytes = (folder / "index.parquet").read_bytes()
        except DamageError as error:
            raise damaged(folder, [problem.what for problem in error.problems]) from None
        except OSError as error:
            raise damaged(folder, [f"cannot be read: {error}"]) from None
        if record is None or record.get("format") != FORMAT:
            raise damaged(folder, [f"store.json must have format {FORMAT}, but got {record and record.get('format')}"])
        tier = Tier.recorded(record)
        problems = []
        if hashlib.sha256(index_bytes).hexdigest() != record["index_sha256"]:
            problems.append("index.parquet has changed since it was written")
        if tier.name == "jpeg":
            offsets = folder / OFFSETS
            found = hashlib.sha256(offsets.read_bytes()).hexdigest() if offsets.exists() else None
            if found != record["offsets_sha256"]:
                problems.append(f"{OFFSETS} is missing or has changed since it was written")
        if problems:
            raise damaged(folder, problems)
        big = folder / tier.file
        size = big.stat().st_size if big.exists() else 0
        if size != record["bytes"]:
            problems.append(f"{tier.file} must have {record['bytes']} bytes, but has {size}")
        return cls(folder, _table(folder / "index.parquet"), record), problems

    def __reduce__(self) -> tuple[Callable[[Path], ClipStore], tuple[Path]]:
        """Pickle the path alone: another process opens the folder itself, and mapped frames are not copied."""
        return ClipStore.open, (self.folder,)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames in pixels."""
        height, width = self.record["size"]
        return height, width

    @property
    def tier(self) -> Tier:
        return Tier.recorded(self.record)

    @property
    def digest(self) -> str:
        """SHA-256, in hex, over every video's name, label and stored bytes."""
        return self.record["digest"]

    @property
    def manifest(self) -> str:
        """Digest of what the frames are made from: the video files and, unless it is raw, the tier."""
        return self.record["manifest"]

    @cached_property
    def _reader(self) -> Reader:
        if self.tier.name == "jpeg":
            return JpegReader(self.folder, self.size)
        return RawReader(self.folder, self.record["frames"], self.size)

    @cached_property
    def _spans(self) -> list[tuple[int, int]]:
        return list(zip(self.index["offset"].tolist(), self.index["frames"].tolist(), strict=True))

    def clip(self, i: int, start: int, count: int) -> np.ndarray:
        """Return `count` frames from `start` on of the video in row i of the index, (count, h, w, 3) uint8 RGB.

        A raw store returns a read-only view of its file, a jpeg store decodes the frames. Raises IndexError where the
        video is shorter.
        """
        offset, frames = self._spans[i]
        if start < 0 or start + count > frames:
            raise IndexError(f"frames {start} to {start + count} of a video of {frames}")
        return self._reader.clip(offset + start, count)

    def frames(self, i: int) -> np.ndarray:
        """Return all frames of row i of the index, (n, h, w, 3) uint8 RGB; see `clip`."""
        return self.clip(i, 0, self._spans[i][1])

    def refused(self) -> tuple[str, ...]:
        """Return the videos that could not be decoded, each with the reason. A list that was lost names none."""
        try:
            table = pd.read_csv(self.folder / "refused.csv", dtype=str, keep_default_na=False)
        except (OSError, ValueError):
            return ()
        return tuple(f"{row.video} {row.reason}" for row in table.itertuples())

    def byte_spans(self) -> list[tuple[int, int]]:
        """Return the (start, end) of each index row's bytes in the big file."""
        return [self._reader.byte_span(offset, frames) for offset, frames in self._spans]


def _table(path: Path) -> pd.DataFrame:
    """Read a Parquet file by Arrow, in this thread.

    pandas hands Arrow a Python object. One of Arrow's threads may release its memory after the interpreter has begun to
    shut down, which aborts the process (seen on a busy machine with pyarrow 25).
    """
    return ParquetFile(path).read(use_threads=False).to_pandas(use_threads=False)


def _same_codec(clips: ClipStore) -> None:
    """Raise StoreError unless the installed simplejpeg is the version that wrote the JPEGs."""
    wanted, missing = clips.record["decoders"].get("simplejpeg"), missing_codec()
    found = f"version {clips.tier.codec['simplejpeg']} is installed" if missing is None else missing
    if missing is not None or clips.tier.codec["simplejpeg"] != wanted:
        what = f"holds JPEGs of simplejpeg {wanted}, but {found}: other pixels might come out"
        raise StoreError([Problem(str(clips.folder), what, f"simplejpeg=={wanted}, or `data prepare` to remake them")])


def usable(clips: ClipStore, min_frames: int) -> pd.DataFrame:
    """Return the rows of the index with at least `min_frames` frames; their labels are row numbers for `clip`.

    Lists the other videos in too_short_<min_frames>.csv in the store's folder. Raises DataError where all are too
    short.
    """
    long_enough = clips.index["frames"] >= min_frames
    path = clips.folder / f"too_short_{min_frames}.csv"
    if not path.exists():
        short = clips.index.loc[~long_enough, ["video", "frames"]]
        reasons = [f"has {frames} frames, a sample needs {min_frames}" for frames in short["frames"]]
        write_atomic(path, short.assign(reason=reasons).to_csv(index=False))
        if len(short) > 0:
            log.info(f"clips: too short for {min_frames} frames: {len(short):,} (list: {path})")
    if not long_enough.any():
        longest = clips.index["frames"].max()
        what = f"needs videos of at least {min_frames} frames, the longest has {longest}"
        raise DataError([Problem("clip.frames", what, "fewer frames a clip or, for tuples, a smaller clip.interval")])
    return clips.index[long_enough]


def chain(index: pd.DataFrame) -> str:
    """Return the SHA-256, in hex, over every video's name, label and SHA-256 of its stored bytes."""
    lines = (f"{row.video}\t{row.label}\t{row.sha256}\n" for row in index.itertuples())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def damaged(folder: Path, problems: list[str]) -> StoreError:
    """Return the error for a store whose content has changed since it was written."""
    remedy = "the next `data prepare` or sweep on its videos repairs or rebuilds it"
    return StoreError([Problem(str(folder), problem) for problem in problems] + [Problem(str(folder), remedy)])
