"""Check a finished ClipStore against its checksums, and decode damaged videos again, only those.

A store is repaired in place, under its lock, before the trials of this process start. Trials of other processes may
have it mapped meanwhile. The repair never shows them wrong frames: it overwrites only videos whose bytes were wrong,
and only with bytes that have the SHA-256 in the index. A store that cannot be repaired is removed and rebuilt under its
name; processes that have the old files mapped keep them unchanged.
"""

from __future__ import annotations

import logging
import shutil
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from kdtune.clips.catalog import video_path
from kdtune.clips.frames.parts import decoded_parts
from kdtune.clips.frames.store import ClipStore, chain
from kdtune.clips.frames.writing import CHUNK, sha256_of_spans
from kdtune.clips.machine import GIB, amount
from kdtune.errors import DataError, Problem, StoreError
from kdtune.parse import JsonObject
from kdtune.store.files import disk_full, read_json, write_json
from kdtune.store.seal import passed_over

log = logging.getLogger(__name__)

#: Stores up to this size are checked whenever they are prepared; larger ones only after a change to their big file.
ALWAYS_VERIFIED_GIB = 2
SHOWN = 3


def check_and_repair(folder: Path, root: Path, threads: int) -> ClipStore | None:
    """Check the finished store in `folder` if that is due, repair it from the videos in `root`, and return it.

    Return None, with the reason on stderr, where the store has to be rebuilt. Raises DataError where the disk is full.
    """
    for left in folder.glob(".part_*"):  # by a repair that was killed
        left.unlink()
    try:
        clips, problems = ClipStore.look(folder)
        if other := _other_digest(clips):
            raise StoreError([Problem(str(folder), other)])
    except StoreError as error:
        log.warning(f"clips: {error.problems[0]}: all its videos are decoded again")
        return None
    big = folder / clips.tier.file
    large = clips.record["bytes"] > ALWAYS_VERIFIED_GIB * GIB
    if not problems and large and _file_state(big) == _verified_state(folder):
        return clips
    if problems:
        log.warning(f"clips: {folder}: {problems[0]}")
        (folder / "verified.json").unlink(missing_ok=True)
        with big.open("ab") as file:
            file.truncate(clips.record["bytes"])
    rows = damaged_rows(clips, threads)
    if rows and (reason := _decode_again(clips, rows, root, threads)):
        log.warning(f"clips: {folder}: {reason}: all its videos are decoded again")
        return None
    write_json(folder / "verified.json", _file_state(big))
    return clips


def damaged_rows(clips: ClipStore, threads: int) -> list[int]:
    """Return the rows of the index whose stored bytes have changed."""
    found = sha256_of_spans(clips.folder / clips.tier.file, clips.byte_spans(), threads)
    bar = tqdm(found, total=len(clips.index), desc="verifying frames", unit="video", disable=None, leave=False)
    return [i for i, (now, was) in enumerate(zip(bar, clips.index["sha256"], strict=True)) if now != was]


def problems_of(folder: Path, threads: int) -> list[str]:
    """Read a finished store in full and return what is damaged. Preparing the store repairs it."""
    try:
        clips, problems = ClipStore.look(folder)
    except StoreError as error:
        return [str(problem) for problem in error.problems]
    found = [f"{folder}: {problem}" for problem in problems]
    names = [clips.index["video"].iloc[i] for i in damaged_rows(clips, threads)]
    found += [f"{folder}: the frames of {name} have changed" for name in names]
    if other := _other_digest(clips):
        found.append(f"{folder}: {other}")
    if found:
        (folder / "verified.json").unlink(missing_ok=True)  # so that `prepare` checks a large store, too
    return found


def _other_digest(clips: ClipStore) -> str:
    """Return what is wrong with the digest in store.json; empty where it is right."""
    return "" if chain(clips.index) == clips.digest else "the digest in store.json does not match index.parquet"


def _decode_again(clips: ClipStore, rows: list[int], root: Path, threads: int) -> str | None:
    """Decode the videos of these rows again into their places. Return a reason where one does not decode as before."""
    names = clips.index["video"].iloc[rows].tolist()
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    damaged = f"{len(rows)} of {len(clips.index)} videos are damaged and decoded again"
    log.warning(f"clips: {clips.folder}: {damaged}: {shown}")
    spans, expected = clips.byte_spans(), clips.index["sha256"]
    videos = [
        (video_path(root, name), clips.folder / f".part_{row:06d}") for row, name in zip(rows, names, strict=True)
    ]
    try:
        with (
            (clips.folder / clips.tier.file).open("r+b") as file,
            closing(decoded_parts(videos, clips.size, clips.tier, threads)) as parts,
        ):
            for row, name, (_, path), part in zip(rows, names, videos, parts, strict=True):
                if isinstance(part, Exception):
                    return f"{name} {part}"
                if part.sha256 != expected.iloc[row]:
                    return f"{name} decodes to other frames than the stored ones"
                file.seek(spans[row][0])
                with path.open("rb") as source:
                    shutil.copyfileobj(source, file, CHUNK)
                path.unlink()
    except OSError as error:
        if not disk_full(error):
            raise
        needed = amount(sum(end - start for start, end in (spans[row] for row in rows)))
        what = f"the disk is full: repairing the frames needs up to {needed}"
        raise DataError([Problem(str(clips.folder), what)]) from None
    return None


def _file_state(big: Path) -> dict[str, int]:
    """Return the properties of a file that change with every write."""
    stat = big.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns}


def _verified_state(folder: Path) -> JsonObject | None:
    return passed_over(lambda: read_json(folder / "verified.json"), None)
