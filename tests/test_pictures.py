"""Folders of frames: one video each, the same frames on each run; broken and missing pictures are refused by name."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import SMALL_CLIP
from layouts import check, counts, read, videos, write
from PIL import Image

from kdtune.clips.dataset import TrialData
from kdtune.clips.frames.build import find_clips, prepare_clips
from kdtune.clips.summary import lines, summary_of
from kdtune.clips.video.decode import Refused, decode, header_frames
from kdtune.clips.video.sequence import sequence_of
from kdtune.config.sections import DataConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import DataError
from kdtune.store import StoreFiles

SIZE = (20, 24)


def picture(seed: int, kind: str = "JPEG", size: tuple[int, int] = (32, 24), **options: object) -> bytes:
    """Return a smooth picture of `size` = (width, height)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, kind, **options)
    return buffer.getvalue()


def frames(folder: Path, seed: int, number: int = 5) -> None:
    for t in range(1, number + 1):
        write(folder / f"img_{t:05d}.jpg", picture(100 * seed + t))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of three videos each, in split folders."""
    for number, name in enumerate(
        ("train/run/a", "train/run/b", "test/run/c", "train/sit/a", "train/sit/b", "test/sit/c")
    ):
        frames(tmp_path / "root" / name, number, 30)
    return tmp_path / "root"


def pixels(folder: Path) -> np.ndarray:
    return np.stack([frame.pixels for frame in decode(folder, SIZE)])


def test_a_folder_of_frames_is_a_video(root: Path, store: StoreFiles) -> None:
    write(root / "train/run/a/flow_x_00001.jpg", "optical flow")
    write(root / "train/run/a/notes.txt", "")
    write(root / "train/run/cover.jpg", "")
    understood = read(root, fps=25)
    check(understood, root)
    assert counts(understood.catalog) == {(a, s): n for a in ("run", "sit") for s, n in (("train", 2), ("test", 1))}
    text = "\n".join(lines(summary_of(understood.data, 16, store)))
    assert "frames     6 folders of 30 frames, 1.2 s at 25 frames per second (data.fps)" in text
    assert "left out   2 files are not videos: .jpg 1, .txt 1" in text
    assert "pictures that are no numbered frames of one video are left out, in train/run" in text


def test_their_store_holds_the_decoded_pictures_and_is_the_same_each_time(root: Path, tmp_path: Path) -> None:
    data = DataConfig(dataset="folder", root=str(root))
    clips = prepare_clips(data, SMALL_CLIP, StoreFiles(tmp_path / "one"))
    again = prepare_clips(data, SMALL_CLIP, StoreFiles(tmp_path / "two"))
    assert (clips.digest, clips.manifest, clips.folder.name) == (again.digest, again.manifest, again.folder.name)
    assert set(clips.record["decoders"]) == {"simplejpeg", "pillow"}
    for row, video in enumerate(clips.index["video"]):
        expected = np.stack([frame.pixels for frame in decode(root / video, clips.size)])
        assert np.array_equal(clips.frames(row), expected)
    found = find_clips(data, SMALL_CLIP, StoreFiles(tmp_path / "one"))
    assert found is not None
    write(root / "test/run/c/img_00030.jpg", picture(0))
    assert find_clips(data, SMALL_CLIP, StoreFiles(tmp_path / "one")) is None
    assert prepare_clips(data, SMALL_CLIP, StoreFiles(tmp_path / "one")).manifest != clips.manifest


def test_pixels_are_those_of_the_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "video"
    for t in range(9, 12):  # numbers decide the order, not the letters
        write(folder / f"frame {t}.png", picture(t, "PNG"))
    expected = [
        np.asarray(Image.open(io.BytesIO(picture(t, "PNG"))).resize(SIZE[::-1], Image.Resampling.BILINEAR))
        for t in range(9, 12)
    ]
    assert np.array_equal(pixels(folder), np.stack(expected))
    assert header_frames(folder) == 3

    for t in range(9, 12):
        write(folder / f"frame {t}.png", picture(t, "JPEG", quality=100, subsampling=0))
    assert np.abs(pixels(folder).astype(int) - np.stack(expected)).max() <= 6

    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    for t in range(9, 12):
        write(folder / f"frame {t}.png", picture(t, "JPEG", (24, 32), exif=exif.tobytes()))
    shown = np.asarray(Image.open(folder / "frame 9.png").rotate(-90, expand=True).resize(SIZE[::-1]))
    assert np.abs(pixels(folder)[0].astype(int) - shown).max() < 40


def damaged(at: float) -> bytes:
    content = bytearray(picture(3, size=(160, 120), quality=95))
    place = int(at * len(content))
    content[place : place + 40] = b"\xff\xd9" * 20
    return bytes(content)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (
        lambda f: (f / "img_00003.jpg").unlink(),
        r"misses frames between img_00001\.jpg and img_00005\.jpg: 3$",
    ),
    "missing several": (
        lambda f: [(f / f"img_0000{k}.jpg").unlink() for k in (2, 3)],
        r"misses frames between img_00001\.jpg and img_00005\.jpg: 2 to 3$",
    ),
    "cut off": (
        lambda f: write(f / "img_00002.jpg", picture(1)[:200]),
        r"has a broken frame: img_00002\.jpg ",
    ),
    "damaged within": (lambda f: write(f / "img_00002.jpg", damaged(0.6)), r"has a broken frame: img_00002\.jpg "),
    "several": (
        lambda f: [write(f / f"img_0000{k}.jpg", b"no picture") for k in (2, 4)],
        r"img_00002\.jpg is no JPEG or PNG; 2 frames are broken, also img_00004\.jpg",
    ),
    "empty": (lambda f: write(f / "img_00005.jpg", ""), r"has a broken frame: img_00005\.jpg is empty"),
    "cut-off PNG": (lambda f: write(f / "img_00005.jpg", picture(1, "PNG")[:-30]), r"broken frame: img_00005\.jpg "),
    "another size": (
        lambda f: write(f / "img_00004.jpg", picture(1, size=(24, 32))),
        r"has frames of two sizes: img_00004\.jpg has 24×32 pixels, the frames before it 32×24",
    ),
    "a cover": (lambda f: write(f / "cover.jpg", picture(1)), r"has pictures beside the frames .*: cover\.jpg"),
    "a number twice": (lambda f: write(f / "img_5.jpg", picture(1)), r"has two frames of one number: img_5\.jpg"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_and_missing_frames_are_refused_with_their_names(kind: str, tmp_path: Path) -> None:
    frames(tmp_path, 0)
    make, message = BROKEN[kind]
    make(tmp_path)
    with pytest.raises(Refused, match=message):
        list(decode(tmp_path, SIZE))


def test_a_refused_folder_is_told_with_its_reason(root: Path, store: StoreFiles) -> None:
    (root / "train/run/b/img_00004.jpg").unlink()
    data = DataConfig(dataset="folder", root=str(root), max_refused=0.2)
    clips = prepare_clips(data, SMALL_CLIP, store)
    text = "\n".join(lines(summary_of(data, 16, store, clips)))
    assert "refused    1 video (list: " in text
    assert "train/run/b misses frames between img_00001.jpg and img_00030.jpg: 4" in text


def test_a_split_that_is_refused_as_a_whole_is_an_error(root: Path, store: StoreFiles) -> None:
    for action in ("run", "sit"):
        (root / f"test/{action}/c/img_00004.jpg").unlink()
    data = DataConfig(dataset="folder", root=str(root), max_refused=0.9)
    with pytest.raises(DataError, match="2 of 6 videos are refused, and with them the whole test list"):
        prepare_clips(data, SMALL_CLIP, store)


@pytest.mark.parametrize(("share", "split"), [(0.2, "val"), (0, "test")])
def test_a_trial_validates_on_the_videos_that_the_data_set_names(
    share: float, split: str, root: Path, store: StoreFiles, trial_form: dict[str, Any]
) -> None:
    for action in ("run", "sit"):
        frames(root / "valid" / action / "d", ord(action[0]), 30)
    data = {"dataset": "folder", "root": str(root), "validation": share}
    config = TrialConfig.model_validate({**trial_form, "data": data, "clip": {**trial_form["clip"], "interval": 2}})
    clips = prepare_clips(config.data, config.clip, store)
    trial = TrialData.of(config, clips)
    assert set(clips.index["split"][trial.validation]) == {split}
    assert set(clips.index["split"][trial.train]) == ({"train"} if share else {"train", "val"})
    assert trial.videos == {"training": 4 if share else 6, "validation": 2, "test": 2}
    assert not set(trial.train) & set(trial.validation)


def test_files_and_folders_of_frames_are_not_mixed(root: Path) -> None:
    videos(root, "train/run/x.mp4")
    with pytest.raises(DataError) as caught:
        read(root)
    assert str(caught.value).count("\n") == 0
    assert "holds 1 video file (train/run/x.mp4) and 6 folders of numbered pictures (test/run/c, " in str(caught.value)


def test_a_class_that_holds_the_frames_itself_is_refused(tmp_path: Path) -> None:
    frames(tmp_path / "run", 0)
    frames(tmp_path / "sit" / "a", 1)
    with pytest.raises(DataError, match=r"run: holds frames itself \(5 pictures\), so its class is unknown"):
        read(tmp_path)


def test_lists_of_folders_of_frames(tmp_path: Path) -> None:
    for action in ("run", "sit"):
        for k in range(3):
            frames(tmp_path / "rawframes" / action / f"v{k}", k)
    rows = [f"{action}/v{k} 5 {label}" for label, action in enumerate(("run", "sit")) for k in range(3)]
    files = "".join(f"{row.split()[0]}.avi,{row[-1]}\n" for row in rows if "v2" not in row)
    write(tmp_path / "train_rawframes.txt", files)
    write(tmp_path / "val_rawframes.txt", "".join(f"{row}\n" for row in rows if "v2" in row))
    understood = read(tmp_path)
    check(understood, tmp_path)
    assert counts(understood.catalog) == {(a, s): n for a in ("run", "sit") for s, n in (("train", 2), ("test", 1))}
    write(tmp_path / "val_rawframes.txt", "run/v2 7 0\nsit/v2 5 1\n")
    with pytest.raises(
        DataError, match=r"val_rawframes.txt:1: lists 7 frames of rawframes/run/v2, but the folder holds 5"
    ):
        read(tmp_path)


@pytest.mark.parametrize("dataset", ["folder", "ucf101"])
def test_official_lists_of_files_name_folders_of_frames(dataset: str, tmp_path: Path) -> None:
    for name in ("run/v_Run_g01_c01", "run/v_Run_g02_c01", "sit/v_Sit_g01_c01", "sit/v_Sit_g02_c01"):
        frames(tmp_path / name, 0)
    write(tmp_path / "classInd.txt", "1 Run\n2 Sit\n")
    write(tmp_path / "trainlist01.txt", "Run/v_Run_g01_c01.avi 1\nSit/v_Sit_g01_c01.avi 2\n")
    write(tmp_path / "testlist01.txt", "Run/v_Run_g02_c01.avi\nSit/v_Sit_g02_c01.avi\n")
    understood = read(tmp_path, dataset=dataset)
    assert counts(understood.catalog) == {(a, s): 1 for a in ("Run", "Sit") for s in ("train", "test")}
    assert set(understood.catalog["group"]) == {"g01", "g02"}
    assert set(understood.reading.frames.values()) == {5}
    (tmp_path / "sit/v_Sit_g02_c01").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"1 of 4 listed videos are missing: Sit/v_Sit_g02_c01"):
        read(tmp_path, dataset=dataset)


def test_copies_of_frames_are_the_same_bytes_under_any_name(root: Path, store: StoreFiles) -> None:
    for t in range(1, 31):
        write(root / f"test/run/copy/x{t}.jpg", (root / f"train/run/a/img_{t:05d}.jpg").read_bytes())
    with pytest.raises(DataError, match="1 video is in the training and the test list, byte for byte: test/run/copy"):
        prepare_clips(DataConfig(dataset="folder", root=str(root)), SMALL_CLIP, store)


def test_which_pictures_are_frames() -> None:
    assert sequence_of(["img_2.jpg", "img_10.jpg", "a.txt", ".img_1.jpg"]).names == ("img_2.jpg", "img_10.jpg")
    assert sequence_of(["v (1).png", "v (2).png"]).numbers == (1, 2)
    assert sequence_of(["a.jpg", "b.jpg"]).strangers == ("a.jpg", "b.jpg")
    assert sequence_of([]).problem == "is a folder"
