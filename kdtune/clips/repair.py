"""Is a finished ClipStore still what was written? Its damaged videos are decoded again, and only those.

A store is mended in its place, under its lock, before the trials of this process start. Trials of other processes may
have it mapped meanwhile. They never see wrong frames because of the mending: bytes are written to videos alone whose
bytes were wrong before, and only such as have the SHA-256 that the index has had all along. A store that cannot be
mended is removed, and made anew under its name: who has the old files mapped keeps them as they were.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kdtune.clips.catalog import video_path
from kdtune.clips.machine import GIB, amount
from kdtune.clips.parts import decoded_parts
from kdtune.clips.store import ClipStore, chain
from kdtune.clips.writing import CHUNK, sha256_of_spans
from kdtune.errors import DataError, Problem, StoreError
from kdtune.store.files import disk_full, read_json, write_json
from kdtune.store.seal import passed_over

#: Stores up to this size are checked whenever they are prepared; larger ones when their file was touched since.
ALWAYS_VERIFIED_GIB = 2
SHOWN = 3


def mended(folder: Path, root: Path, threads: int) -> ClipStore | None:
    """The finished store in `folder`, checked where that is due and mended from the videos in `root` where it must be.

    None, said on stderr with its reason, where the store has to be made anew. Raises DataError where the disk is full.
    """
    for left in folder.glob(".part_*"):  # by a mending that was killed
        left.unlink()
    try:
        clips, problems = ClipStore.look(folder)
        if other := _other_digest(clips):
            raise StoreError([Problem(str(folder), other)])
    except StoreError as error:
        _say(f"{error.problems[0]}: all its videos are decoded again")
        return None
    big = folder / clips.tier.file
    if not problems and clips.record["bytes"] > ALWAYS_VERIFIED_GIB * GIB and _mark(big) == _last_mark(folder):
        return clips
    if problems:
        _say(f"{folder}: {problems[0]}")
        (folder / "verified.json").unlink(missing_ok=True)
        with big.open("ab") as file:
            file.truncate(clips.record["bytes"])
    rows = damaged_rows(clips, threads)
    if rows and (reason := _decode_again(clips, rows, root, threads)):
        _say(f"{folder}: {reason}: all its videos are decoded again")
        return None
    write_json(folder / "verified.json", _mark(big))
    return clips


def damaged_rows(clips: ClipStore, threads: int) -> list[int]:
    """The rows of the index whose bytes are not the ones that were written."""
    found = sha256_of_spans(clips.folder / clips.tier.file, clips.byte_spans(), threads)
    bar = tqdm(found, total=len(clips.index), desc="verifying frames", unit="video", disable=None, leave=False)
    return [i for i, (now, was) in enumerate(zip(bar, clips.index["sha256"], strict=True)) if now != was]


def problems_of(folder: Path, threads: int) -> list[str]:
    """Read everything of a finished store and name what is damaged. It is mended when the store is next prepared."""
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
        (folder / "verified.json").unlink(missing_ok=True)  # a large store is then checked by `prepare`, too
    return found


def _other_digest(clips: ClipStore) -> str:
    """What is wrong with the digest in store.json; empty where nothing is."""
    return "" if chain(clips.index) == clips.digest else "the digest in store.json is not the one of index.parquet"


def _decode_again(clips: ClipStore, rows: list[int], root: Path, threads: int) -> str | None:
    """Write the videos of these rows again, in their places; a reason where one does not come out as it was."""
    names = clips.index["video"].iloc[rows].tolist()
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    _say(f"{clips.folder}: {len(rows)} of {len(clips.index)} videos are damaged, and decoded again: {shown}")
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
                    return f"{name} decodes to other frames than those that were stored"
                file.seek(spans[row][0])
                with path.open("rb") as source:
                    shutil.copyfileobj(source, file, CHUNK)
                path.unlink()
    except OSError as error:
        if not disk_full(error):
            raise
        what = f"the disk is full: to mend the frames, up to {amount(sum(b - a for a, b in (spans[i] for i in rows)))}"
        raise DataError([Problem(str(clips.folder), f"{what} are needed on it")]) from None
    return None


def _mark(big: Path) -> dict[str, Any]:
    """What changes when somebody writes to a file."""
    stat = big.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns}


def _last_mark(folder: Path) -> dict[str, Any] | None:
    return passed_over(lambda: read_json(folder / "verified.json"), None)


def _say(text: str) -> None:
    print(f"clips: {text}", file=sys.stderr, flush=True)
