"""Write a ClipStore so that a killed build can resume.

Each video is decoded into a *part*, a file of its own; parts are appended to the store's big file in the order of the
catalog. While it is built, the folder holds beside the files that store.py lists:

    part_<row>        a video that is being decoded or waits for its turn
    progress.jsonl    one line per finished row of the catalog: frames, bytes, sha256, decoder; or why it is refused
    sizes.i64         jpeg tier only: the bytes of each JPEG, int64, until frames.npy is made from them

A line is written after the bytes that it describes. After a crash neither is trusted: each line is checked against the
bytes, and the build resumes at the first video that does not match. So nothing needs an fsync before the end, and the
bytes do not depend on interruptions.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TypedDict, cast

import numpy as np
import pandas as pd

from kdtune.clips.frames.store import FORMAT, chain
from kdtune.clips.frames.tiers import OFFSETS, Frame, Tier
from kdtune.errors import DamageError
from kdtune.parse import JsonObject
from kdtune.store.files import as_json, write_atomic, write_json, write_jsonl
from kdtune.store.seal import opened, sealed

PROGRESS, SIZES = "progress.jsonl", "sizes.i64"
CHUNK = 2**20


class DoneVideo(TypedDict, total=False):
    """A finished row of the catalog: what was stored of the video, or why it is refused."""

    frames: int
    bytes: int
    sha256: str
    """Of its bytes in the store's big file."""
    decoder: str
    refused: str
    """The reason; such a row has no other entry."""


class Stopped(Exception):
    """The build was cancelled because another video failed, or the caller stopped."""


@dataclass(frozen=True)
class Part:
    """One encoded video in a file of its own."""

    path: Path
    sizes: tuple[int, ...]  # bytes of each frame
    sha256: str
    decoder: str


def write_part(path: Path, tier: Tier, frames: Iterable[Frame], stop: Event | None = None) -> Part:
    """Encode and write frames as they arrive, holding one frame at a time.

    Raises what `frames` raises, OSError, and Stopped once `stop` is set.
    """
    sha, sizes, decoder = hashlib.sha256(), list[int](), ""
    with path.open("wb", buffering=CHUNK) as file:
        for frame in frames:
            if stop is not None and stop.is_set():
                raise Stopped
            if frame.number == 0:
                file.seek(0)
                file.truncate()
                sha, sizes = hashlib.sha256(), []
            data = memoryview(tier.encode(frame.pixels))
            sha.update(data)
            file.write(data)
            sizes.append(data.nbytes)
            decoder = frame.decoder
    return Part(path, tuple(sizes), sha.hexdigest(), decoder)


def sha256_of(file: int, start: int, end: int) -> str:
    """Return the SHA-256, in hex, of the bytes from `start` to `end` of an open file descriptor.

    Reads in chunks instead of mapping the file, so that the bytes do not count as this process's memory.
    """
    sha = hashlib.sha256()
    while start < end:
        data = os.pread(file, min(CHUNK, end - start), start)
        if not data:
            break
        sha.update(data)
        start += len(data)
    return sha.hexdigest()


def sha256_of_spans(path: Path, spans: Sequence[tuple[int, int]], threads: int) -> Iterable[str]:
    """Yield `sha256_of` each span of a file in order, computed by `threads` threads. A missing file is an empty one."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield from [hashlib.sha256().hexdigest()] * len(spans)
        return
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(lambda span: sha256_of(file, *span), spans)
    finally:
        os.close(file)


class StoreWriter:
    """Appends a catalog's videos to the store being built in `folder`; resumes an interrupted build."""

    def __init__(self, folder: Path, size: tuple[int, int], tier: Tier, threads: int = 1) -> None:
        self.folder, self.size, self.tier = folder, size, tier
        self.rows: list[DoneVideo] = self._sound_rows(threads)
        """The finished rows of the catalog."""
        self.bytes = sum(row.get("bytes", 0) for row in self.rows)
        self.frames = sum(row.get("frames", 0) for row in self.rows)
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob("part_*"):
            part.unlink()
        _truncate(folder / tier.file, self.bytes)
        if tier.name == "jpeg":
            _truncate(folder / SIZES, 8 * self.frames)
        write_jsonl(folder / PROGRESS, self.rows)

    def part_path(self, row: int) -> Path:
        return self.folder / f"part_{row:06d}"

    def add(self, part: Part) -> None:
        """Append the video of the next catalog row and remove its part. Raises OSError; earlier rows stay intact."""
        with part.path.open("rb") as source, (self.folder / self.tier.file).open("r+b") as file:
            file.seek(self.bytes)
            shutil.copyfileobj(source, file, CHUNK)
        if self.tier.name == "jpeg":
            with (self.folder / SIZES).open("r+b") as sizes:
                sizes.seek(8 * self.frames)
                sizes.write(np.array(part.sizes, np.int64).tobytes())
        part.path.unlink()
        figures: DoneVideo = {"frames": len(part.sizes), "bytes": sum(part.sizes), "sha256": part.sha256}
        self._note({**figures, "decoder": part.decoder})
        self.bytes += sum(part.sizes)
        self.frames += len(part.sizes)

    def refuse(self, reason: str) -> None:
        """Leave out the next row of the catalog, for this reason."""
        self._note({"refused": reason})

    def finish(self, catalog: pd.DataFrame, made_from: Mapping[str, object]) -> pd.DataFrame:
        """Write the index and records of the finished store. Return the refused videos: video, reason.

        `made_from` goes to store.json: the decoders' versions and, unless the frames' own digest serves, a manifest.
        """
        assert len(self.rows) == len(catalog), "not every row of the catalog is done"
        with (self.folder / self.tier.file).open("rb") as file:
            os.fsync(file.fileno())
        videos = catalog.to_dict("records")
        kept = [{**video, **row} for video, row in zip(videos, self.rows, strict=True) if "refused" not in row]
        index = pd.DataFrame(kept, columns=[*catalog.columns, "frames", "offset", "sha256", "decoder"])
        index["offset"] = index["frames"].cumsum() - index["frames"]
        index_bytes = index.to_parquet(index=False)
        write_atomic(self.folder / "index.parquet", index_bytes)
        pairs = [(v["video"], row["refused"]) for v, row in zip(videos, self.rows, strict=True) if "refused" in row]
        refused = pd.DataFrame(pairs, columns=["video", "reason"])
        write_atomic(self.folder / "refused.csv", refused.to_csv(index=False))
        record: JsonObject = {"format": FORMAT, "size": list(self.size), **self.tier.record}
        record |= {"videos": len(index), "frames": int(index["frames"].sum()), "bytes": self.bytes}
        record |= {"digest": chain(index), "manifest": chain(index)}
        record["index_sha256"] = hashlib.sha256(index_bytes).hexdigest()
        if self.tier.name == "jpeg":
            sizes = np.fromfile(self.folder / SIZES, np.int64)
            np.save(self.folder / OFFSETS, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
            with (self.folder / OFFSETS).open("rb") as file:
                os.fsync(file.fileno())
            record["offsets_sha256"] = hashlib.sha256((self.folder / OFFSETS).read_bytes()).hexdigest()
        write_json(self.folder / "store.json", {**record, "refused": len(refused), **made_from})
        return refused

    def clear(self, folder: Path) -> None:
        """Remove the files that only a build needs from the finished store's `folder`."""
        for name in (PROGRESS, SIZES):
            (folder / name).unlink(missing_ok=True)

    def _note(self, row: DoneVideo) -> None:
        with (self.folder / PROGRESS).open("ab") as file:
            file.write(sealed(as_json(row)).encode() + b"\n")
        self.rows.append(row)

    def _sound_rows(self, threads: int) -> list[DoneVideo]:
        """Return the rows of an interrupted build, up to the first that does not match its bytes."""
        rows: list[DoneVideo] = []
        path = self.folder / PROGRESS
        for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else []:
            try:
                rows.append(cast(DoneVideo, opened(line, path)))
            except DamageError:  # the machine lost power
                break
        ends = np.cumsum([row.get("bytes", 0) for row in rows]).tolist()
        spans = [(end - row.get("bytes", 0), end) for row, end in zip(rows, ends, strict=True)]
        found = sha256_of_spans(self.folder / self.tier.file, spans, threads)
        sizes = self.folder / SIZES
        jpegs = np.fromfile(sizes, np.int64) if self.tier.name == "jpeg" and sizes.exists() else np.zeros(0, np.int64)
        first = 0
        for number, (row, sha256) in enumerate(zip(rows, found, strict=True)):
            if "refused" in row:
                continue
            own = jpegs[first : first + row["frames"]]
            first += row["frames"]
            if sha256 != row["sha256"] or (self.tier.name == "jpeg" and own.sum() != row["bytes"]):
                return rows[:number]
        return rows


def _truncate(path: Path, size: int) -> None:
    with path.open("ab") as file:
        file.truncate(size)
