"""Writing a ClipStore, so that a build that was killed goes on where it was.

Each video becomes a *part*, a file of its own, as it is decoded; parts are appended to the store's big file in the
order of the catalog. In the folder that is being made, beside what store.py lists:

    part_<row>        a video that is being decoded, or waits for its turn
    progress.jsonl    one line a row of the catalog that is done: frames, bytes, sha256, decoder; or why it is refused
    sizes.i64         of the jpeg tier: the bytes of each JPEG, int64, until frames.npy is made of them

A line is written after the bytes that it tells of. Neither is trusted after a crash: what a line says is held against
the bytes, and the first video that is not as it says is where the build goes on. So nothing here needs to be on the
disk before the end, and the bytes do not depend on interruptions.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pandas as pd

from kdtune.clips.store import FORMAT, chain
from kdtune.clips.tiers import OFFSETS, Frame, Tier
from kdtune.errors import DamageError
from kdtune.store.files import as_json, write_atomic, write_json, write_jsonl
from kdtune.store.seal import opened, sealed

PROGRESS, SIZES = "progress.jsonl", "sizes.i64"
CHUNK = 2**20


class Stopped(Exception):
    """Another video's trouble ends the build."""


@dataclass(frozen=True)
class Part:
    """One video, encoded, in a file of its own."""

    path: Path
    sizes: tuple[int, ...]  # bytes of each frame
    sha256: str
    decoder: str


def write_part(path: Path, tier: Tier, frames: Iterable[Frame], stop: Event | None = None) -> Part:
    """Encode and write frames as they come: a video of any length is held one frame at a time.

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
    """Of the bytes from `start` to `end` of an open file, in hex; read, not mapped, so that they stay out of memory."""
    sha = hashlib.sha256()
    while start < end:
        data = os.pread(file, min(CHUNK, end - start), start)
        if not data:
            break
        sha.update(data)
        start += len(data)
    return sha.hexdigest()


def sha256_of_spans(path: Path, spans: Sequence[tuple[int, int]], threads: int) -> Iterable[str]:
    """`sha256_of` each span of a file, in order, computed by several threads; a missing file is an empty one."""
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
    """Appends a catalog's videos to a store that is being made in `folder`; begins where an earlier one was stopped."""

    def __init__(self, folder: Path, size: tuple[int, int], tier: Tier, threads: int = 1) -> None:
        self.folder, self.size, self.tier = folder, size, tier
        self.rows: list[dict[str, Any]] = self._found(threads)
        """What is done, one entry a row of the catalog: frames, bytes, sha256, decoder; or refused."""
        self.bytes = sum(row.get("bytes", 0) for row in self.rows)
        self.frames = sum(row.get("frames", 0) for row in self.rows)
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob("part_*"):
            part.unlink()
        _cut(folder / tier.file, self.bytes)
        if tier.name == "jpeg":
            _cut(folder / SIZES, 8 * self.frames)
        write_jsonl(folder / PROGRESS, self.rows)

    def part_path(self, row: int) -> Path:
        return self.folder / f"part_{row:06d}"

    def add(self, part: Part) -> None:
        """Append a video, the next row of the catalog, and remove its part. Raises OSError; what was there is kept."""
        with part.path.open("rb") as source, (self.folder / self.tier.file).open("r+b") as file:
            file.seek(self.bytes)
            shutil.copyfileobj(source, file, CHUNK)
        if self.tier.name == "jpeg":
            with (self.folder / SIZES).open("r+b") as sizes:
                sizes.seek(8 * self.frames)
                sizes.write(np.array(part.sizes, np.int64).tobytes())
        part.path.unlink()
        figures = {"frames": len(part.sizes), "bytes": sum(part.sizes), "sha256": part.sha256}
        self._note({**figures, "decoder": part.decoder})
        self.bytes += sum(part.sizes)
        self.frames += len(part.sizes)

    def refuse(self, reason: str) -> None:
        """The next row of the catalog is left out."""
        self._note({"refused": reason})

    def finish(self, catalog: pd.DataFrame, made_from: dict[str, Any]) -> pd.DataFrame:
        """Write what belongs to a whole store. Returns the refused: video, reason.

        `made_from` goes to store.json: the decoders' versions and, where it is not the frames' own digest, a manifest.
        """
        assert len(self.rows) == len(catalog), "every row of the catalog is done"
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
        record: dict[str, Any] = {"format": FORMAT, "size": list(self.size), **self.tier.record}
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
        """Remove, from where the finished store is now, what only a build needs."""
        for name in (PROGRESS, SIZES):
            (folder / name).unlink(missing_ok=True)

    def _note(self, row: dict[str, Any]) -> None:
        with (self.folder / PROGRESS).open("ab") as file:
            file.write(sealed(as_json(row)).encode() + b"\n")
        self.rows.append(row)

    def _found(self, threads: int) -> list[dict[str, Any]]:
        """The lines of an earlier build, up to the first whose bytes are not as it says."""
        rows: list[dict[str, Any]] = []
        path = self.folder / PROGRESS
        for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else []:
            try:
                row = opened(line, path)
            except DamageError:  # of a machine that lost its power
                break
            rows.append(row)
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


def _cut(path: Path, size: int) -> None:
    with path.open("ab") as file:
        file.truncate(size)
