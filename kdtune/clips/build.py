"""Building a ClipStore's folder: decode all videos, a few at a time, and write them in the order of the catalog."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from tqdm import tqdm

from kdtune.clips.catalog import video_path
from kdtune.clips.cores import cores
from kdtune.clips.decode import Decoded, Refused, decode
from kdtune.store import write_atomic, write_json

#: Of the folder's files; raised when an older kdtune could not read them or would read them wrongly.
FORMAT = 1

Item = TypeVar("Item")


def build(
    folder: Path, catalog: pd.DataFrame, root: Path, size: tuple[int, int], made_from: dict[str, Any], threads: int = 0
) -> pd.DataFrame:
    """Decode the catalog's videos at `size` = (height, width) into the empty `folder`; `made_from` goes to store.json.

    Returns the refused videos (video, reason). `threads` are as many as there are cores by default; the bytes are the
    same whatever their number.
    """
    rows: list[dict[str, Any]] = []
    refused: list[tuple[str, str]] = []
    offset = 0
    videos: list[dict[str, Any]] = catalog.to_dict("records")  # type: ignore[assignment]
    with (folder / "frames.u8").open("wb") as file:
        outcomes = _decoded([video_path(root, row["video"]) for row in videos], size, threads or cores())
        for row, outcome in zip(videos, _progress(outcomes, len(videos)), strict=True):
            if isinstance(outcome, Refused):
                refused.append((row["video"], str(outcome)))
                continue
            frames = outcome.frames
            file.write(frames.data)
            sha256 = hashlib.sha256(frames.data).hexdigest()
            rows.append({**row, "frames": len(frames), "offset": offset, "sha256": sha256, "decoder": outcome.decoder})
            offset += len(frames)
        file.flush()
        os.fsync(file.fileno())
    index = pd.DataFrame(rows, columns=[*catalog.columns, "frames", "offset", "sha256", "decoder"])
    index_bytes = index.to_parquet(index=False)
    refused_table = pd.DataFrame(refused, columns=["video", "reason"])
    write_atomic(folder / "index.parquet", index_bytes)
    write_atomic(folder / "refused.csv", refused_table.to_csv(index=False))
    totals = {
        "videos": len(index),
        "refused": len(refused),
        "frames": offset,
        "bytes": offset * size[0] * size[1] * 3,
        "digest": chain(index),
        "index_sha256": hashlib.sha256(index_bytes).hexdigest(),
    }
    write_json(folder / "store.json", {"format": FORMAT, "size": list(size), **totals, **made_from})
    return refused_table


def chain(index: pd.DataFrame) -> str:
    """SHA-256 over every video's name, label and frames' SHA-256, in hex."""
    lines = (f"{row.video}\t{row.label}\t{row.sha256}\n" for row in index.itertuples())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _decoded(paths: list[Path], size: tuple[int, int], threads: int) -> Iterator[Decoded | Refused]:
    """Outcomes in the order of `paths`. At most two videos a thread are held, so that memory stays bounded."""
    waiting: deque[Future[Decoded | Refused]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for path in paths:
            waiting.append(pool.submit(_outcome, path, size))
            if len(waiting) == 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _outcome(path: Path, size: tuple[int, int]) -> Decoded | Refused:
    try:
        return decode(path, size)
    except Refused as refused:
        return refused


def _progress(items: Iterable[Item], total: int) -> Iterator[Item]:
    """A bar on a terminal; a line for every tenth where stderr is piped."""
    piped = not sys.stderr.isatty()
    for done, item in enumerate(tqdm(items, total=total, desc="decoding videos", unit="video", disable=piped), 1):
        yield item
        if piped and done * 10 // total > (done - 1) * 10 // total:
            print(f"clips: {done:,} of {total:,} videos decoded", file=sys.stderr, flush=True)
