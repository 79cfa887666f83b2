"""The ClipStore: built once, whole, with the same bytes for any threads and kills; never used silently when damaged."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import SMALL_CLIP, copied, decoded, flip_a_byte

from kdtune.clips.catalog import load_catalog
from kdtune.clips.frames import build as building
from kdtune.clips.frames.build import find_clips, prepare_clips
from kdtune.clips.frames.store import ClipStore, usable
from kdtune.config.sections import ClipConfig, DataConfig
from kdtune.errors import DataError, StoreError
from kdtune.store import StoreFiles
from kdtune.store.files import write_json

RAW_FILES = ("frames.u8", "index.parquet", "refused.csv", "store.json")
JPEG_FILES = ("frames.jpeg", "frames.npy", *RAW_FILES[1:])


@pytest.fixture
def copy(eight_clips: ClipStore, tmp_path: Path) -> ClipStore:
    return copied(eight_clips, StoreFiles(tmp_path))


def test_it_holds_what_decodes(eight_clips: ClipStore, eight: DataConfig, eight_videos: Path) -> None:
    catalog = load_catalog(eight)
    pd.testing.assert_frame_equal(eight_clips.index[list(catalog.columns)], catalog, check_dtype=False)
    assert eight_clips.size == (37, 49)
    assert eight_clips.index["offset"].iloc[0] == 0
    for i, row in enumerate(eight_clips.index.itertuples()):
        frames = eight_clips.frames(i)
        assert frames.shape == (row.frames, 37, 49, 3)
        assert frames.dtype == np.uint8
        assert not frames.flags.writeable
        assert not frames.flags.owndata
        np.testing.assert_array_equal(frames, decoded(eight_videos / row.video, (37, 49))[0])
        assert hashlib.sha256(frames.tobytes()).hexdigest() == row.sha256
        np.testing.assert_array_equal(eight_clips.clip(i, 7, 5), frames[7:12])
    with pytest.raises(IndexError):
        eight_clips.clip(0, len(eight_clips.frames(0)) - 3, 4)
    assert (eight_clips.folder / "refused.csv").read_text() == "video,reason\n"


def test_the_second_time_nothing_is_decoded(
    eight_clips: ClipStore, eight: DataConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(building, "build", lambda *_: pytest.fail("built again"))
    again = prepare_clips(eight, SMALL_CLIP, StoreFiles(eight_clips.folder.parents[1]))
    assert again.digest == eight_clips.digest
    assert again.manifest == eight_clips.manifest
    assert capsys.readouterr().err == ""


def test_another_size_is_another_store(eight_clips: ClipStore, eight: DataConfig) -> None:
    other = prepare_clips(
        eight, ClipConfig(frames=8, size=16, resize=(20, 24)), StoreFiles(eight_clips.folder.parents[1])
    )
    assert other.folder != eight_clips.folder
    assert other.size == (20, 24)
    assert other.manifest == eight_clips.manifest
    assert other.frames(0).shape[1:] == (20, 24, 3)


def test_a_store_that_was_read_by_other_rules_is_left_alone(
    eight_clips: ClipStore, eight: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = copied(eight_clips, StoreFiles(tmp_path))
    before = {path.name: path.read_bytes() for path in older.folder.iterdir()}
    monkeypatch.setattr(building, "READING", building.READING + 1)
    assert find_clips(eight, SMALL_CLIP, StoreFiles(tmp_path)) is None
    now = prepare_clips(eight, SMALL_CLIP, StoreFiles(tmp_path))
    assert now.folder != older.folder
    assert now.record["reading"] == eight_clips.record["reading"] + 1
    assert {path.name: path.read_bytes() for path in older.folder.iterdir()} == before


def with_broken_videos(root: Path, tmp_path: Path, broken: int) -> DataConfig:
    copied = tmp_path / "broken set"
    shutil.copytree(root, copied)
    for path in sorted(copied.glob("Rise/*.avi"))[:broken]:
        path.write_bytes(path.read_bytes()[:20_000])
    return DataConfig(dataset="synthetic", root=str(copied), max_refused=0.2)


def test_refused_videos_are_left_out_and_listed(
    eight_clips: ClipStore, eight_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = with_broken_videos(eight_videos, tmp_path, 1)
    clips = prepare_clips(data, SMALL_CLIP, StoreFiles(tmp_path / "store"))
    refused = pd.read_csv(clips.folder / "refused.csv")
    assert list(refused["video"]) == ["Rise/v_Rise_g01_c01.avi"]
    assert refused["reason"].str.startswith("promises ").all()
    kept = eight_clips.index[eight_clips.index["video"] != "Rise/v_Rise_g01_c01.avi"].reset_index(drop=True)
    pd.testing.assert_frame_equal(clips.index.drop(columns="offset"), kept.drop(columns="offset"))
    np.testing.assert_array_equal(clips.frames(0), eight_clips.frames(1))
    err = capsys.readouterr().err
    assert err.splitlines()[-1] == (
        f"kdtune: clips: 7 videos, {clips.index['frames'].sum():,} frames, 0.00 GiB at 37×49; "
        f"refused 1 (list: {clips.folder / 'refused.csv'})"
    )
    assert "\r" not in err


def test_too_many_refused_is_an_error_with_reasons(eight_videos: Path, tmp_path: Path) -> None:
    data = with_broken_videos(eight_videos, tmp_path, 2)
    store = StoreFiles(tmp_path / "store")
    with pytest.raises(DataError) as caught:
        prepare_clips(data, SMALL_CLIP, store)
    assert "2 of 8 videos are refused" in str(caught.value)
    assert "Rise/v_Rise_g02_c01.avi: promises" in str(caught.value)
    (kept,) = (store.root / "clips").iterdir()
    assert kept.name.endswith(".refused.csv")
    assert str(kept) in str(caught.value)
    assert len(pd.read_csv(kept)) == 2
    prepare_clips(data.model_copy(update={"max_refused": 0.25}), SMALL_CLIP, store)
    assert not kept.exists()


@pytest.mark.parametrize("name", ["frames.u8", "index.parquet", "store.json"])
@pytest.mark.parametrize("damage", ["missing", "short", "empty"])
def test_damaged_files_are_found_on_opening(name: str, damage: str, copy: ClipStore) -> None:
    path = copy.folder / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2] if damage == "short" else b"")
    with pytest.raises(StoreError) as caught:
        ClipStore.open(copy.folder)
    assert str(copy.folder) in str(caught.value)


def test_a_changed_index_and_another_format_are_found(copy: ClipStore) -> None:
    record = copy.folder / "store.json"
    whole = record.read_text()
    record.write_text(whole.replace('"format": 1', '"format": 99'))
    with pytest.raises(StoreError, match="does not match its checksum"):
        ClipStore.open(copy.folder)
    write_json(record, {**copy.record, "format": 99})
    with pytest.raises(StoreError, match="must have format 1, but got 99"):
        ClipStore.open(copy.folder)
    record.write_text(whole)
    flip_a_byte(copy.folder / "index.parquet", 50)
    with pytest.raises(StoreError, match=r"index\.parquet has changed since"):
        ClipStore.open(copy.folder)


def test_other_processes_open_the_folder_themselves(eight_clips: ClipStore) -> None:
    eight_clips.frames(0)
    sent = pickle.dumps(eight_clips)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).frames(1), eight_clips.frames(1))


def test_too_short_videos_are_filtered_and_listed(copy: ClipStore) -> None:
    shortest, longest = copy.index["frames"].min(), copy.index["frames"].max()
    assert len(usable(copy, int(shortest))) == len(copy.index)
    kept = usable(copy, int(shortest) + 1)
    dropped = copy.index.drop(kept.index)
    assert set(dropped["frames"]) == {shortest}
    assert len(dropped) >= 1
    listed = pd.read_csv(copy.folder / f"too_short_{shortest + 1}.csv")
    assert list(listed["video"]) == list(dropped["video"])
    # Row numbers are the store's.
    for i, row in kept.iterrows():
        assert len(copy.frames(i)) == row["frames"]
    with pytest.raises(DataError, match=f"needs videos of at least 500 frames, the longest has {longest}"):
        usable(copy, 500)
