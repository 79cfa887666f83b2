"""Build a ClipStore or find an existing one: choose the tier, check the disk space, decode each video once."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kdtune.clips.catalog import PARTS, DataSet, read_data_set, video_path
from kdtune.clips.duplicates import refuse_harmful, same_bytes
from kdtune.clips.frames.parts import Progress, decoded_parts
from kdtune.clips.frames.repair import check_and_repair
from kdtune.clips.frames.store import FORMAT, ClipStore
from kdtune.clips.frames.survey import Survey, choose, survey
from kdtune.clips.frames.tiers import Tier, missing_codec
from kdtune.clips.frames.writing import StoreWriter
from kdtune.clips.machine import GIB, amount, cores, free_bytes, memory_bytes
from kdtune.clips.manifest import digest_of, file_hashes, manifest_digest, recorded_digest
from kdtune.clips.video.decode import READING, Refused, decoder_versions
from kdtune.clips.video.pictures import picture_decoders
from kdtune.config.key import digest
from kdtune.config.sections import ClipConfig, DataConfig
from kdtune.errors import DataError, Problem, StoreError
from kdtune.parse import printable
from kdtune.store import StoreFiles
from kdtune.store.files import disk_full, write_atomic

log = logging.getLogger(__name__)

REASONS_SHOWN = 5


@dataclass(frozen=True)
class Source:
    """The videos of a ClipStore and the size of its frames, (height, width) in pixels."""

    catalog: pd.DataFrame
    root: Path
    manifest: str
    size: tuple[int, int]
    max_refused: float
    pictures: bool = False
    """Whether the videos are folders of frames."""

    @property
    def paths(self) -> list[Path]:
        return [video_path(self.root, video) for video in self.catalog["video"]]

    def made_from(self, tier: Tier) -> dict[str, object]:
        decoders = (picture_decoders() if self.pictures else decoder_versions()) | tier.codec
        return {"manifest": tier.manifest(self.manifest), "decoders": decoders, "reading": READING}

    def key(self, tier: Tier) -> str:
        """Return the name of the store's folder."""
        return digest({"size": self.size, "format": FORMAT, **self.made_from(tier)})


def prepare_clips(data: DataConfig, clip: ClipConfig, store: StoreFiles) -> ClipStore:
    """Return the ClipStore of a data set at the size that `clip` asks for. Build it once, then check and repair it.

    An interrupted build resumes. Raises DataError where videos or lists are missing, the same bytes are in two classes
    or in two splits, too many videos are refused, the disk is too small or full, or the tier's codec is missing.
    """
    data_set, root, threads = read_data_set(data), Path(data.folder), cores()
    catalog, reading = data_set.catalog, data_set.reading
    hashes = file_hashes(catalog, root, store)
    for warning in refuse_harmful(data, same_bytes(catalog, hashes, root)):
        log.warning(f"warning: {warning}")
    source = _source(data_set, digest_of(catalog, hashes), clip)
    allowed = _allowed(clip)
    # One lock for all tiers: the choice of a tier depends on which of them exist.
    with store.lock(f"clips-{source.key(Tier('raw'))}"):
        # Copy the first tier that another machine has made.
        any(store.fetch_clips(store.clips(source.key(tier))).is_dir() for tier in allowed)
        tier, seen = _choose_tier(source, allowed, clip.quality, store, threads)
        folder = store.clips(source.key(tier))
        if not folder.exists() or check_and_repair(folder, root, threads) is None:
            shutil.rmtree(folder, ignore_errors=True)
            _make(source, tier, seen or survey(source.paths, source.size, clip.quality, threads), store, threads)
            lines = (described(ClipStore.open(folder)), *reading.guesses, *reading.notes)
            for line in lines:
                log.info(f"clips: {printable(line)}")
            check_and_repair(folder, root, threads)  # reads the new store once and records that it is sound
        store.publish_clips(folder.name, tier.files)
    return ClipStore.open(folder)


def find_clips(data: DataConfig, clip: ClipConfig, store: StoreFiles) -> ClipStore | None:
    """Return the ClipStore that `prepare_clips` would open; None where there is none, or a video may have changed.

    Uses the store's records alone: hashes, decodes, checks and writes nothing.
    """
    try:
        data_set = read_data_set(data)
        manifest = recorded_digest(data_set.catalog, Path(data.folder), store)
        if manifest is None:
            return None
        source = _source(data_set, manifest, clip)
        folders = [store.clips(source.key(tier)) for tier in _allowed(clip)]
        return next((ClipStore.open(folder) for folder in folders if folder.exists()), None)
    except (DataError, StoreError):
        return None


def build(writer: StoreWriter, paths: Sequence[Path], frames: Sequence[int], threads: int) -> None:
    """Decode the videos that `writer` does not have yet.

    `frames` holds the approximate frame count of each video, for the progress display. The bytes do not depend on the
    number of threads.
    """
    done = len(writer.rows)
    progress = Progress(frames, done)
    videos = [(path, writer.part_path(row)) for row, path in enumerate(paths)]
    with closing(decoded_parts(videos[done:], writer.size, writer.tier, threads)) as parts, closing(progress):
        for part in parts:
            if isinstance(part, Refused):
                writer.refuse(str(part))
            else:
                writer.add(part)
            progress.advance()


def described(clips: ClipStore) -> str:
    """Return the store's totals in one line, with the tier where it is not raw."""
    record = clips.record
    line = (
        f"{record['videos']:,} videos, {record['frames']:,} frames, {record['bytes'] / GIB:.2f} GiB "
        f"at {clips.size[0]}×{clips.size[1]}"
    )
    if clips.tier.name != "raw":
        line += f" as {clips.tier}"
    if record["refused"]:
        line += f"; refused {record['refused']:,} (list: {clips.folder / 'refused.csv'})"
    return line


def _source(data_set: DataSet, manifest: str, clip: ClipConfig) -> Source:
    """Return the source of a data set's frames. Raises DataError where folders of frames lack their decoder."""
    data, pictures = data_set.data, bool(data_set.reading.frames)
    if pictures and (missing := missing_codec()):
        raise DataError([Problem("data.root", f"holds folders of frames, but {missing}", "pip install simplejpeg")])
    return Source(data_set.catalog, Path(data.folder), manifest, clip.stored_size, data.max_refused, pictures)


def _allowed(clip: ClipConfig) -> list[Tier]:
    """Return the tiers that `clip` and the installed codecs allow, raw first. Raises DataError where none is left."""
    tiers = [Tier("raw"), Tier("jpeg", clip.quality)]
    missing = missing_codec() if clip.tier != "raw" else None
    if clip.tier == "jpeg" and missing is not None:
        raise DataError([Problem("clip.tier", f"got jpeg, but {missing}", "raw; or pip install simplejpeg")])
    if clip.tier == "auto":
        return tiers if missing is None else tiers[:1]
    return [tier for tier in tiers if tier.name == clip.tier]


def _choose_tier(
    source: Source, allowed: list[Tier], quality: int, store: StoreFiles, threads: int
) -> tuple[Tier, Survey | None]:
    """Return the tier of an existing store, finished or begun, so that an earlier choice stays.

    Without one, survey the videos and return the tier that suits this machine, with the survey.
    """
    for place in (store.clips, store.making_clips):
        for tier in allowed:
            if place(source.key(tier)).exists():
                return tier, None
    if len(allowed) == 1:
        return allowed[0], None
    seen = survey(source.paths, source.size, quality, threads)
    raw, jpeg = (seen.bytes(tier) for tier in allowed)
    tier, why = choose(raw, jpeg, quality, memory_bytes(), free_bytes(store.root))
    if why:
        log.info(why)
    return tier, seen


def _make(source: Source, tier: Tier, seen: Survey, store: StoreFiles, threads: int) -> None:
    """Build the store beside its place and rename it when complete. Resume what a full disk or a kill left behind."""
    folder, making = store.clips(source.key(tier)), store.making_clips(source.key(tier))
    writer = None
    try:
        writer = StoreWriter(making, source.size, tier, threads)
        if writer.rows:
            log.info(f"clips: resuming after {len(writer.rows):,} of {len(source.catalog):,} videos")
        needed, free = seen.bytes(tier, len(writer.rows)), free_bytes(making)
        if needed > free:
            if not writer.rows:
                shutil.rmtree(making)  # an empty folder would fix the choice of the tier
            what = f"the frames need about {amount(needed)}, but its disk has {amount(free)} free"
            raise DataError([Problem(str(folder.parent), what, _disk_remedy(tier))])
        build(writer, source.paths, seen.frames, threads)
        refused = writer.finish(source.catalog, source.made_from(tier))
    except OSError as error:
        if not disk_full(error):
            raise
        done = len(writer.rows) if writer is not None else 0
        what = (
            f"the disk is full: {done:,} of {len(source.catalog):,} videos are decoded and kept, the others need about "
            f"{amount(seen.bytes(tier, done))}, and {amount(free_bytes(folder.parent))} are free; once there is room, "
            "run the same command again to resume"
        )
        raise DataError([Problem(str(folder.parent), what, _disk_remedy(tier))]) from None
    try:
        if manifest_digest(source.catalog, source.root, store) != source.manifest:
            what = "videos changed while they were decoded; run the same command again to start over"
            raise DataError([Problem(str(source.root), what)])
        list_path = folder.with_name(f"{folder.name}.refused.csv")
        _refuse_too_many(refused, source.catalog, source.max_refused, list_path)
    except DataError:
        shutil.rmtree(making)  # useless once the files are fixed: they then have another manifest
        raise
    os.replace(making, folder)
    writer.clear(folder)


def _disk_remedy(tier: Tier) -> str:
    less = "; clip.tier: jpeg needs less" if tier.name == "raw" else ""
    return f"free some space, or name another disk with --store{less}"


def _refuse_too_many(refused: pd.DataFrame, catalog: pd.DataFrame, allowed: float, kept: Path) -> None:
    """Raise DataError where a whole split, or more than the allowed share, is refused. Write the list to `kept`."""
    total, left = len(catalog), catalog.loc[~catalog["video"].isin(refused["video"]), "split"]
    emptied = [part for part in PARTS if part in set(catalog["split"]) - set(left)]
    if len(refused) <= allowed * total and not emptied:
        kept.unlink(missing_ok=True)
        return
    write_atomic(kept, refused.to_csv(index=False))
    what = f"{len(refused)} of {total} videos are refused"
    if emptied and len(left):
        what += f", and with them the whole {' and '.join(PARTS[part] for part in emptied)} list"
    what += f", all of them in {kept}"
    share = f"a share of {allowed:g}; raise data.max_refused or fix the files"
    shown = refused.head(REASONS_SHOWN).values.tolist()
    raise DataError([Problem("data.max_refused", what, share), *(Problem(video, reason) for video, reason in shown)])
