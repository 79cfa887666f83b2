"""Making a ClipStore: decode all videos, a few at a time, and write them in the order of the catalog."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from tqdm import tqdm

from kdtune.clips.catalog import load_catalog, video_path
from kdtune.clips.cores import cores
from kdtune.clips.decode import Decoded, Refused, decode, decoder_versions
from kdtune.clips.manifest import manifest_digest
from kdtune.clips.store import FORMAT, ClipStore, damaged, write_frames, write_record
from kdtune.config.key import digest
from kdtune.config.sections import ClipConfig, DataConfig
from kdtune.errors import DataError, Problem
from kdtune.store import Store, write_atomic

GIB = 2**30
#: Stores up to this size are checked frame by frame whenever they are prepared.
ALWAYS_VERIFIED_GIB = 2
REASONS_SHOWN = 5

Item = TypeVar("Item")


def prepare_clips(data: DataConfig, clip: ClipConfig, store: Store) -> ClipStore:
    """The ClipStore of a data set at the size that `clip` asks for: built once, then opened and checked.

    Raises DataError (videos or lists missing, too many refused, disk full) and StoreError (the stored one is damaged).
    """
    catalog = load_catalog(data)
    root = Path(data.folder)
    manifest = manifest_digest(catalog, root, store)
    decoders = decoder_versions()
    size = clip.stored_size
    folder = store.clips(digest({"manifest": manifest, "size": size, "format": FORMAT, "decoders": decoders}))
    with store.lock(f"clips-{folder.name}"):
        if not folder.exists():
            making = folder.with_name(f".{folder.name}.making")
            shutil.rmtree(making, ignore_errors=True)  # left by a build that was killed
            making.mkdir(parents=True)
            try:
                refused = build(making, catalog, root, size, {"manifest": manifest, "decoders": decoders})
                list_path = folder.with_name(f"{folder.name}.refused.csv")
                _refuse_too_many(refused, len(catalog), data.max_refused, list_path)
                os.replace(making, folder)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise DataError([Problem(str(making.parent), "the disk is full; --store names another")]) from None
            finally:
                shutil.rmtree(making, ignore_errors=True)
            print(_summary(ClipStore.open(folder)), file=sys.stderr)
    clips = ClipStore.open(folder)
    if clips.record["bytes"] <= ALWAYS_VERIFIED_GIB * GIB and (problems := clips.verify()):
        raise damaged(folder, problems)
    return clips


def build(
    folder: Path, catalog: pd.DataFrame, root: Path, size: tuple[int, int], made_from: dict[str, Any], threads: int = 0
) -> pd.DataFrame:
    """Decode the catalog's videos at `size` = (height, width) into the empty `folder`; `made_from` goes to store.json.

    Returns the refused videos (video, reason). `threads` are as many as there are cores by default; the bytes are the
    same whatever their number.
    """
    refused: list[tuple[str, str]] = []
    videos: list[dict[str, Any]] = catalog.to_dict("records")  # type: ignore[assignment]

    def accepted() -> Iterator[tuple[dict[str, Any], np.ndarray, str]]:
        outcomes = _decoded([video_path(root, row["video"]) for row in videos], size, threads or cores())
        for row, outcome in zip(videos, _progress(outcomes, len(videos)), strict=True):
            if isinstance(outcome, Refused):
                refused.append((row["video"], str(outcome)))
            else:
                yield row, outcome.frames, outcome.decoder

    totals = write_frames(folder, accepted(), list(catalog.columns))
    refused_table = pd.DataFrame(refused, columns=["video", "reason"])
    write_atomic(folder / "refused.csv", refused_table.to_csv(index=False))
    write_record(folder, size, {**totals, "refused": len(refused), **made_from})
    return refused_table


def _refuse_too_many(refused: pd.DataFrame, total: int, allowed: float, kept: Path) -> None:
    """DataError where more than the allowed share is refused, or all; the list stays at `kept`."""
    if len(refused) <= allowed * total and len(refused) < total:
        kept.unlink(missing_ok=True)
        return
    write_atomic(kept, refused.to_csv(index=False))
    what = f"{len(refused)} of {total} videos are refused, all of them in {kept}"
    share = f"a share of {allowed:g}; raise data.max_refused or mend the files"
    shown = refused.head(REASONS_SHOWN).values.tolist()
    raise DataError([Problem("data.max_refused", what, share), *(Problem(video, reason) for video, reason in shown)])


def _summary(clips: ClipStore) -> str:
    record = clips.record
    line = (
        f"clips: {record['videos']:,} videos, {record['frames']:,} frames, {record['bytes'] / GIB:.2f} GiB "
        f"at {clips.size[0]}×{clips.size[1]}"
    )
    if record["refused"]:
        line += f"; refused {record['refused']:,} (list: {clips.folder / 'refused.csv'})"
    return line


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
