"""`data init`: a sweep file that fits a folder, whatever its layout."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from layouts import write
from PIL import Image

from kdtune.cli import main
from kdtune.clips.catalog import load_catalog, video_path
from kdtune.clips.headers import Headers, read_headers
from kdtune.config.load import parse_sweep
from kdtune.config.sections import DataConfig
from kdtune.config.sweep import SweepConfig
from kdtune.errors import DataError
from kdtune.plan.fit import clip_for
from kdtune.plan.plan import plan
from kdtune.store import StoreFiles


def classes(videos: Path, root: Path) -> None:
    """Link the videos into class folders, without lists."""
    for folder in sorted(path for path in videos.iterdir() if path.is_dir()):
        shutil.copytree(folder, root / folder.name)


def splits(videos: Path, root: Path) -> None:
    classes(videos, root / "train")
    for folder in sorted((root / "train").iterdir()):
        for path in sorted(folder.glob("*_g01_*")):
            (root / "test" / folder.name).mkdir(parents=True, exist_ok=True)
            path.rename(root / "test" / folder.name / path.name)


def lists_inside(videos: Path, root: Path) -> None:
    shutil.copytree(videos, root)


def lists_beside(videos: Path, root: Path) -> None:
    classes(videos, root)
    for path in videos.glob("*.txt"):
        write(root / "lists" / path.name, path.read_bytes())


def hmdb51(videos: Path, root: Path) -> None:
    classes(videos, root)
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        lines = [f"{path.name} {2 if '_g01_' in path.name else 1}\n" for path in sorted(folder.iterdir())]
        write(root / "splits" / f"{folder.name}_test_split1.txt", "".join(lines))


def mmaction2(videos: Path, root: Path) -> None:
    classes(videos, root)
    actions = sorted(path.name for path in root.iterdir())
    for split, group in (("train", "_g0[2-9]_"), ("val", "_g01_")):
        paths = sorted(path.relative_to(root) for path in root.glob(f"*/*{group}*"))
        lines = [f"{path} {actions.index(path.parts[0])}\n" for path in paths]
        write(root / "annotations" / f"mine_{split}_list_videos.txt", "".join(lines))


def frames(videos: Path, root: Path) -> None:
    picture = BytesIO()
    Image.new("RGB", (64, 48)).save(picture, "JPEG")
    for path in videos.glob("*/*.*"):
        for number in range(1, 31):
            write(root / path.parent.name / path.stem / f"{number:05d}.jpg", picture.getvalue())


def made(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[SweepConfig, str, str]:
    """Return the sweep, the file's text and the messages."""
    assert main(["data", "init", str(folder), "--store", str(tmp_path / "runs")]) == 0
    out, err = capsys.readouterr()
    return parse_sweep(out, tmp_path / "mine.yaml"), out, err


@pytest.mark.parametrize(
    ("layout", "said", "fields"),
    [
        (classes, "class folders", {"dataset": "folder"}),
        (splits, "split folders (test, train)", {"dataset": "folder"}),
        (lists_inside, "UCF101's lists", {"dataset": "folder"}),
        (lists_beside, "UCF101's lists", {"dataset": "folder", "lists": "lists"}),
        (hmdb51, "HMDB51's lists", {"dataset": "hmdb51", "lists": "splits"}),
        (mmaction2, "lists mine_train_list_videos.txt", {"dataset": "folder", "lists": "annotations"}),
        (frames, "40 folders of 30 frames", {"dataset": "folder"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_layout_gives_a_file_that_plan_reads(
    layout: object,
    said: str,
    fields: dict[str, str],
    videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "my videos"
    layout(videos, root)  # type: ignore[operator]
    sweep, text, messages = made(root, tmp_path, capsys)
    data, lists = sweep.trial.data, fields.get("lists")
    assert (data.dataset, data.root) == (fields["dataset"], str(root))
    assert data.lists == (str(root / lists) if lists else None)
    assert said in text
    assert "# cost " in text
    assert sweep.name == "my_videos"
    planned = "\n".join(plan(sweep, StoreFiles(tmp_path / "runs")))
    assert said in planned
    # 40 videos are too few to validate on, which the file, the messages and `plan` say alike.
    for place in (text.replace("\n#     ", " "), messages, planned):
        assert place.count("only more videos do") == 1
    assert planned.count("warning") == 1
    lengths = read_headers([video_path(root, video) for video in load_catalog(data)["video"]], 1).frames
    assert sweep.trial.frames_needed <= lengths.min()


def test_eight_videos_are_enough_for_a_file(
    eight_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, _, messages = made(eight_videos, tmp_path, capsys)
    assert sweep.trial.optimizer.batch == 2
    assert sweep.trial.loss.contrast == "in_batch"
    assert "validation has" in messages


def test_a_folder_of_any_name_is_quoted(eight_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "a: #1, {my}\nclips 'n' \"more\""
    lists_inside(eight_videos, root)
    assert made(root, tmp_path, capsys)[0].trial.data.root == str(root)


def test_a_folder_that_cannot_be_used_is_refused_as_by_prepare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("run/a.avi", "run/b.avi", "sit/c.avi", "sit/d.avi", "sit/e.avi"):
        write(tmp_path / "data" / "all" / name, "no video")
    with pytest.raises(DataError) as error:
        load_catalog(DataConfig(dataset="folder", root=str(tmp_path / "data")))
    assert main(["data", "init", str(tmp_path / "data")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert str(error.value) in err
    assert main(["data", "init", str(tmp_path / "data" / "all")]) == 2  # the layout is right, but not the files
    assert "holds no file that can be opened as a video" in capsys.readouterr().err


def test_lists_that_do_not_fit_are_not_passed_over(
    eight_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists_beside(eight_videos, tmp_path / "set")
    next((tmp_path / "set" / "Rise").iterdir()).unlink()
    assert main(["data", "init", str(tmp_path / "set")]) == 2
    assert "1 of 8 listed videos are missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("frames", "height", "width", "gpu", "clip"),
    [
        (300, 240, 320, False, {"frames": 8, "size": 32, "interval": 8}),
        (300, 240, 320, True, {"frames": 16, "size": 112, "interval": 8}),
        (46, 240, 320, True, {"frames": 10, "size": 112, "interval": 8}),
        (30, 240, 320, False, {"frames": 8, "size": 32, "interval": 2}),
        (14, 240, 320, False, {"frames": 4, "size": 32, "interval": 0}),
        (300, 1920, 1080, True, {"frames": 16, "size": 112, "interval": 8, "resize": [228, 128]}),
        (300, 64, 64, True, {"frames": 16, "size": 56, "interval": 8, "resize": [64, 64]}),
    ],
)
def test_clips_are_as_long_and_as_large_as_the_videos_allow(
    frames: int, height: int, width: int, gpu: bool, clip: dict[str, object]
) -> None:
    lengths, heights, widths = (np.array([number] * 4) for number in (frames, height, width))
    assert clip_for(Headers(lengths, heights, widths, unreadable=()), gpu=gpu) == clip
