"""A ClipStore that was damaged on the disk is noticed, reported and repaired: its damaged videos are decoded again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import SMALL_CLIP, copied, flip_a_byte

from kdtune.clips.frames import repair
from kdtune.clips.frames.build import prepare_clips
from kdtune.clips.frames.repair import problems_of
from kdtune.clips.frames.store import ClipStore
from kdtune.clips.frames.tiers import Frame, Tier
from kdtune.clips.frames.writing import StoreWriter, write_part
from kdtune.config.sections import DataConfig
from kdtune.errors import StoreError
from kdtune.store import StoreFiles
from kdtune.store.files import write_json

#: What a sweep does before its first trial.
Prepare = Callable[[], ClipStore]


@pytest.fixture(scope="module", params=["raw", "jpeg"])
def built(request: pytest.FixtureRequest, eight: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    tier = SMALL_CLIP.model_copy(update={"tier": request.param})
    return prepare_clips(eight, tier, StoreFiles(tmp_path_factory.mktemp("built")))


@pytest.fixture
def copy(built: ClipStore, tmp_path: Path) -> ClipStore:
    return copied(built, StoreFiles(tmp_path))


@pytest.fixture
def prepare(eight: DataConfig, tmp_path: Path) -> Prepare:
    """Open the copy through `prepare_clips`."""
    return lambda: prepare_clips(eight, SMALL_CLIP, StoreFiles(tmp_path))


def big(clips: ClipStore) -> Path:
    return clips.folder / clips.tier.file


def damage(clips: ClipStore, *rows: int) -> list[str]:
    """Flip a bit in each of these videos. Return their names."""
    for row in rows:
        flip_a_byte(big(clips), clips.byte_spans()[row][0] + 700)
    return clips.index["video"].iloc[list(rows)].tolist()


def same_files(a: ClipStore, b: ClipStore) -> bool:
    names = (a.tier.file, "index.parquet", "store.json", *(["frames.npy"] if a.tier.name == "jpeg" else []))
    return all((a.folder / name).read_bytes() == (b.folder / name).read_bytes() for name in names)


def test_only_the_damaged_videos_are_decoded_again(
    copy: ClipStore,
    built: ClipStore,
    prepare: Prepare,
    decodes: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = built.frames(5)
    copy.frames(5)  # mapped while it is damaged and repaired
    names = damage(copy, 2, 5)
    assert problems_of(copy.folder, 2) == [f"{copy.folder}: the frames of {name} have changed" for name in names]
    clips = prepare()
    assert sorted(decodes) == sorted(Path(name).name for name in names)
    said = f"kdtune: clips: {copy.folder}: 2 of 8 videos are damaged and decoded again: {', '.join(names)}\n"
    assert capsys.readouterr().err == said
    assert same_files(clips, built)
    np.testing.assert_array_equal(copy.frames(5), before)
    assert problems_of(copy.folder, 2) == []
    assert not list(copy.folder.glob(".part*"))
    prepare()
    assert len(decodes) == 2


@pytest.mark.parametrize("left", ["a half", "nothing", "no file", "more"])
def test_a_file_of_another_length_gets_what_is_missing(
    left: str, copy: ClipStore, built: ClipStore, prepare: Prepare, decodes: list[str]
) -> None:
    if left == "no file":
        big(copy).unlink()
    else:
        lengths = {"a half": copy.byte_spans()[4][1], "nothing": 0, "more": built.record["bytes"] + 9}
        os.truncate(big(copy), lengths[left])
    with pytest.raises(StoreError, match=f"{copy.tier.file} must have {built.record['bytes']} bytes, but has "):
        ClipStore.open(copy.folder)
    assert same_files(prepare(), built)
    assert len(decodes) == {"a half": 3, "more": 0}.get(left, 8)


RECORDS = [("raw", "index.parquet"), ("raw", "store.json")]
RECORDS += [("jpeg", "index.parquet"), ("jpeg", "store.json"), ("jpeg", "frames.npy")]


@pytest.mark.parametrize(("built", "name"), RECORDS, indirect=["built"])
def test_damaged_records_make_it_anew(
    built: ClipStore,
    name: str,
    copy: ClipStore,
    prepare: Prepare,
    decodes: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    os.truncate(copy.folder / name, 60)
    assert len(problems_of(copy.folder, 2)) >= 1
    assert same_files(prepare(), built)
    assert len(decodes) == 8
    assert f"clips: {copy.folder}: " in capsys.readouterr().err.splitlines()[0]


def test_a_video_that_decodes_to_other_frames_makes_it_anew(
    built: ClipStore, prepare: Prepare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Make a sound store of other frames, as another decoder of the same version might."""
    folder = StoreFiles(tmp_path).clips(built.folder.name)
    writer = StoreWriter(folder, built.size, built.tier)
    for i in range(8):
        frames = (Frame(t, 255 - pixels, "decord") for t, pixels in enumerate(built.frames(i)))
        writer.add(write_part(writer.part_path(i), built.tier, frames))
    catalog = built.index[["video", "label", "action", "split", "group"]]
    writer.finish(catalog, {name: built.record[name] for name in ("manifest", "decoders", "reading")})
    other = ClipStore.open(folder)
    assert prepare().digest == other.digest != built.digest
    (name,) = damage(other, 3)
    assert prepare().digest == built.digest
    assert f"{name} decodes to other frames than the stored ones: all its videos" in capsys.readouterr().err


def test_large_stores_are_checked_when_their_file_was_touched(
    copy: ClipStore, prepare: Prepare, decodes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "ALWAYS_VERIFIED_GIB", 0)
    checks: list[Path] = []
    rows_of = repair.damaged_rows
    monkeypatch.setattr(repair, "damaged_rows", lambda clips, threads: (checks.append(1), rows_of(clips, threads))[1])
    prepare()  # the copy is another file than the checked one
    prepare()
    assert (len(checks), decodes) == (1, [])
    damage(copy, 1)
    prepare()
    assert (len(checks), len(decodes)) == (2, 1)
    prepare()
    assert len(checks) == 2


def test_what_rots_unseen_is_found_by_verify_and_then_mended(
    copy: ClipStore, built: ClipStore, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "ALWAYS_VERIFIED_GIB", 0)
    damage(copy, 1)
    write_json(copy.folder / "verified.json", repair._file_state(big(copy)))  # neither time nor size shows it
    assert not same_files(prepare(), built)
    assert len(problems_of(copy.folder, 2)) == 1
    assert same_files(prepare(), built)


def test_a_replaced_video_of_the_same_size_and_time_gives_a_new_store(eight_videos: Path, tmp_path: Path) -> None:
    """As `cp -p` or `rsync -t` would."""
    root = tmp_path / "set"
    shutil.copytree(eight_videos, root)
    data, store = DataConfig(dataset="synthetic", root=str(root)), StoreFiles(tmp_path / "store")
    first = prepare_clips(data, SMALL_CLIP, store)
    small, large = sorted(root.glob("Rise/*.avi"), key=lambda path: path.stat().st_size)
    was = large.stat()
    large.write_bytes(small.read_bytes() + bytes(was.st_size - small.stat().st_size))
    os.utime(large, ns=(was.st_atime_ns, was.st_mtime_ns))
    now = large.stat()
    assert (now.st_size, now.st_mtime_ns) == (was.st_size, was.st_mtime_ns)
    second = prepare_clips(data, SMALL_CLIP, store)
    assert second.folder != first.folder
    assert second.manifest != first.manifest
    rows = {Path(video).name: i for i, video in enumerate(second.index["video"])}
    np.testing.assert_array_equal(second.frames(rows[large.name]), second.frames(rows[small.name]))
    assert Tier.recorded(second.record) == Tier()
