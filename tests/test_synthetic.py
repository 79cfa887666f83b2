"""The synthetic set: files, lists, repeatability, and that only motion reveals the class."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

from kdtune.clips import synthetic
from kdtune.clips.catalog import load_catalog
from kdtune.clips.motion import (
    ALL_CLASSES,
    CLASSES,
    HEIGHT,
    LARGEST_PX,
    LEAST_PX,
    WIDTH,
    Pose,
    Video,
    frames_of,
    motion,
)
from kdtune.clips.motion import _draw as draw
from kdtune.clips.motion import _look as look
from kdtune.clips.synthetic import make_synthetic
from kdtune.config.sections import DataConfig
from kdtune.errors import DataError

SMALL = {"classes": ("SpinLeft", "Rise"), "groups": 2, "clips": 2}


def contents(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "deeper" / "set"
    make_synthetic(root, **SMALL)
    return root


def test_it_is_read_like_ucf101(made: Path) -> None:
    catalog = load_catalog(DataConfig(dataset="synthetic", root=str(made)))
    assert len(catalog) == 8
    assert list(catalog["action"].unique()) == ["Rise", "SpinLeft"]
    assert catalog.groupby("action")["label"].first().to_dict() == {"Rise": 1, "SpinLeft": 0}
    assert catalog.groupby("group")["split"].first().to_dict() == {"g01": "test", "g02": "train"}
    for split in (2, 3):
        other = load_catalog(DataConfig.model_validate({"dataset": "synthetic", "root": str(made), "split": split}))
        assert len(other) == 8


def test_real_files_of_both_kinds(made: Path) -> None:
    for name, codec in (("v_Rise_g01_c01.avi", "mpeg4"), ("v_Rise_g01_c02.mp4", "h264")):
        with av.open(str(made / "Rise" / name)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == codec
            assert (stream.width, stream.height, stream.average_rate) == (320, 240, 25)
            assert 90 <= stream.frames <= 110


def test_the_same_seed_gives_the_same_files_from_workers_too(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "WORTH_WORKERS", 0)
    monkeypatch.setattr(synthetic, "cores", lambda: 2)
    make_synthetic(tmp_path / "again", **SMALL)
    assert contents(tmp_path / "again") == contents(made)


def test_frames_are_golden() -> None:
    """The data set must not change unnoticed: raise VERSION when these values change."""
    frame = next(frames_of(Video(0, "Orbit", 3, 2)))
    assert frame.size == (WIDTH, HEIGHT)
    assert hashlib.sha256(frame.tobytes()).hexdigest()[:16] == "f20f976b2a73b79a"


def test_a_second_call_does_nothing(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_encode", lambda *_: pytest.fail("made again"))
    make_synthetic(made, **SMALL)


@pytest.mark.parametrize("change", [{"seed": 1}, {"groups": 3}, {"classes": ("Rise", "SpinLeft")}])
def test_another_set_is_not_overwritten(change: dict, made: Path) -> None:
    before = contents(made)
    with pytest.raises(DataError, match="holds another set"):
        make_synthetic(made, **{**SMALL, **change})
    assert contents(made) == before


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="holds other files"):
        make_synthetic(tmp_path, **SMALL)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_wrong_parameters_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        make_synthetic(tmp_path / "set", classes=("Rise", "Dance"), groups=1, clips=0)
    assert "Dance" in str(caught.value)
    assert "at least 2 and 1" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_killed_run_leaves_no_set_and_the_next_one_makes_it(made: Path, tmp_path: Path) -> None:
    code = (
        "import sys, threading; from pathlib import Path; from kdtune.clips import synthetic\n"
        "encode, count = synthetic._encode, []\n"
        "def stuck(video, folder):\n"
        "    encode(video, folder); count.append(video)\n"
        "    if len(count) == 2: print('half made', flush=True); threading.Event().wait()\n"
        "synthetic._encode = stuck\n"
        "synthetic.make_synthetic(Path(sys.argv[1]), classes=('SpinLeft', 'Rise'), groups=2, clips=2)\n"
    )
    root = tmp_path / "set"
    command = [sys.executable, "-c", code, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "half made\n"
        os.kill(child.pid, signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert not root.exists()
    assert (tmp_path / ".set.making").is_dir()
    make_synthetic(root, **SMALL)
    assert contents(root) == contents(made)
    assert not (tmp_path / ".set.making").exists()


def test_the_look_depends_on_seed_and_group_alone() -> None:
    def picture(seed: int, group: int) -> bytes:
        background, sprites = look(seed, group)
        return background.tobytes() + b"".join(p.tobytes() + m.tobytes() for p, m in sprites)

    assert picture(0, 1) == picture(0, 1)
    assert len({picture(seed, group) for seed in (0, 1) for group in (1, 2)}) == 4


@pytest.mark.parametrize("action", ALL_CLASSES)
def test_a_single_frame_says_nothing(action: str) -> None:
    """Position, size and angle are uniform in every class, at the start of a video and later."""
    random = np.random.Generator(np.random.Philox(0))
    poses = [motion(action, 10, random.random(8)) for _ in range(2000)]
    for t in (0, 9):
        sprite = [pose[t][1] for pose in poses]
        values = [
            np.array([pose.x for pose in sprite]) / WIDTH,
            np.array([pose.y for pose in sprite]) / HEIGHT,
            np.array([pose.angle for pose in sprite]),
            np.log([pose.diameter / LEAST_PX for pose in sprite]) / np.log(LARGEST_PX / LEAST_PX),
        ]
        for value in values:
            # Kolmogorov–Smirnov against the uniform distribution: 0.0436 is the 0.1 % point at n = 2000.
            ranks = np.arange(1, len(value) + 1) / len(value)
            assert np.abs(np.sort(value) - ranks).max() < 0.0436


def test_every_class_moves_in_its_own_way() -> None:
    random = np.random.Generator(np.random.Philox(1))
    for draws in random.random((20, 8)):
        pose = {action: [frame[0] for frame in motion(action, 9, draws)] for action in CLASSES}
        for action in CLASSES:
            path = np.array([(p.x, p.y, p.diameter, p.angle) for p in pose[action]])
            x, y, d, a = path.T
            dx = (np.diff(x) + WIDTH / 2) % WIDTH - WIDTH / 2
            dy = (np.diff(y) + HEIGHT / 2) % HEIGHT - HEIGHT / 2
            turn = (np.diff(a) + 0.5) % 1 - 0.5
            growth = np.sign(np.diff(d)).sum()  # seven of eight steps where a cycle ends once
            moves = np.hypot(dx, dy)
            assert (growth >= 6) == (action == "Grow")
            assert (growth <= -6) == (action == "Shrink")
            assert (turn > 0.05).all() == (action == "SpinLeft")
            if action in ("Slide", "Rise", "Fall", "Orbit"):
                assert (moves >= 3.2).all()  # one pixel per frame where 49 are stored for 160
            if action == "Shake":
                assert moves.max() >= 8
            assert (dy < -3).all() == (action == "Rise")
            assert (dy > 3).all() == (action == "Fall")
            assert (np.abs(dx) > 3).all() == (action == "Slide") or action in ("Orbit", "Shake")


def test_spin_left_is_counter_clockwise_and_sprites_wrap() -> None:
    marker = Image.new("RGB", (64, 64))
    marker.paste((255, 255, 255), (48, 24, 64, 40))  # on the right of the sprite
    cover = Image.new("L", (64, 64), 255)

    def brightest(pose: Pose) -> tuple[float, float]:
        frame = Image.new("RGB", (WIDTH, HEIGHT))
        draw(frame, marker, cover, pose)
        y, x = np.nonzero(np.asarray(frame)[:, :, 0] > 200)
        return float(x.mean()), float(y.mean())

    x, y = brightest(Pose(80, 60, 64, 0.0))
    assert x > 100
    assert abs(y - 60) < 1.5
    x, y = brightest(Pose(80, 60, 64, 0.25))  # a quarter turn brings it up, and y points down
    assert abs(x - 80) < 1.5
    assert y < 40
    x, y = brightest(Pose(150, 60, 64, 0.0))
    assert x < 25
    assert abs(y - 60) < 1.5
