"""Files with the same bytes: in two classes, in training and test, or twice in one class; and what commands print."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import SMALL_CLIP
from layouts import write

from kdtune.cli import main
from kdtune.clips.frames.build import prepare_clips
from kdtune.clips.summary import lines, summary_of
from kdtune.config.sections import DataConfig
from kdtune.errors import EXIT_OK, EXIT_USER_ERROR, DataError
from kdtune.store import StoreFiles


@pytest.fixture
def root(eight_videos: Path, tmp_path: Path) -> Path:
    """Two classes in split folders: two training videos and one test video each."""
    for action in ("Rise", "SpinLeft"):
        files = sorted((eight_videos / action).iterdir())
        for file, part in zip(files, ("train", "train", "test"), strict=False):
            folder = tmp_path / "root" / part / action
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / file.name.replace("_g", "-g"))
    return tmp_path / "root"


def copy(root: Path, video: str, to: str) -> None:
    (file,) = (root / video).parent.glob(f"*{Path(video).name}*")
    shutil.copy(file, root / to)


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("train/Rise/copy.mp4", r"1 video is in two classes, byte for byte: train/Rise/copy\.mp4 = train/SpinLeft/"),
        ("test/SpinLeft/copy.mp4", r"1 video is in the training and the test list, byte for byte: test/SpinLeft/copy"),
    ],
)
def test_contradictions_and_leaks_are_refused(root: Path, to: str, message: str, store: StoreFiles) -> None:
    copy(root, "train/SpinLeft/g01_c01", to)
    data = DataConfig(dataset="folder", root=str(root))
    with pytest.raises(DataError, match=message):
        prepare_clips(data, SMALL_CLIP, store)
    assert not store.clip_stores()


def test_they_may_be_allowed_and_are_warned_of(
    root: Path, store: StoreFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(root, "train/SpinLeft/g01_c01", "train/Rise/copy.mp4")
    data = DataConfig(dataset="folder", root=str(root), same_bytes="allow")
    assert len(prepare_clips(data, SMALL_CLIP, store).index) == 7
    assert f"warning: {root}: 1 video is in two classes, byte for byte" in capsys.readouterr().err


def test_copies_in_one_class_are_noted(root: Path, store: StoreFiles) -> None:
    copy(root, "train/SpinLeft/g01_c01", "train/SpinLeft/copy.mp4")
    data = DataConfig(dataset="folder", root=str(root))
    clips = prepare_clips(data, SMALL_CLIP, store)
    text = "\n".join(lines(summary_of(data, 16, store, clips)))
    assert "note       1 video is twice in one class, byte for byte: train/SpinLeft/copy.mp4 = train/Spin" in text


def test_what_is_no_video_has_no_copies(root: Path, store: StoreFiles) -> None:
    for name in ("train/Rise/0.mp4", "train/SpinLeft/1.mp4"):
        write(root / name, "<html>video is private</html>")
    for name in ("train/Rise/e.mp4", "test/Rise/e.mp4"):
        write(root / name, "")
    data = DataConfig(dataset="folder", root=str(root), max_refused=0.5)
    assert prepare_clips(data, SMALL_CLIP, store).record["refused"] == 4


def test_commands_say_what_they_understood(
    root: Path,
    trial_form: dict[str, Any],
    sweep_form: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(root / "train" / "Rise" / "broken.mp4", "no video")
    write(root / "train" / "Rise" / "notes.txt", "")
    trial = {**trial_form, "data": {"dataset": "folder", "root": str(root), "max_refused": 0.5}}
    write(tmp_path / "trial.yaml", yaml.safe_dump(trial))
    write(tmp_path / "sweep.yaml", yaml.safe_dump({**sweep_form, "trial": trial}))
    store = ["--store", str(tmp_path / "runs")]

    assert main(["plan", str(tmp_path / "sweep.yaml"), *store]) == EXIT_OK
    planned = capsys.readouterr().out
    assert main(["data", "prepare", str(tmp_path / "trial.yaml"), *store]) == EXIT_OK
    before, after = capsys.readouterr().out.split("videos       ")[1:]
    assert f"videos       {before}".rstrip() in planned
    for text in (before, after):
        assert f"folder in {root}: split folders (test, train)" in text
        assert "left out   1 file is not a video: .txt 1" in text
    assert "classes    2: Rise 4, SpinLeft 3" in before
    assert "classes    2: Rise 3, SpinLeft 3" in after
    assert "refused    1 video (list: " in after

    write(root / "jump" / "1.mp4", "")
    assert main(["plan", str(tmp_path / "sweep.yaml"), *store]) == EXIT_OK
    assert "split folders (test, train) beside other folders of videos (jump)" in capsys.readouterr().out
    assert main(["data", "prepare", str(tmp_path / "trial.yaml"), *store]) == EXIT_USER_ERROR
