"""Every file is decoded correctly, or refused with a reason, whatever is wrong with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from helpers import ROOT, SHARED, decoded
from PIL import Image

from kdtune.clips.motion import Video
from kdtune.clips.synthetic import make_synthetic
from kdtune.clips.video import decode as module
from kdtune.clips.video.decode import Refused

CLIPS = SHARED / "clips"
needs_shared = pytest.mark.skipif(not CLIPS.is_dir(), reason=f"the shared clips are not at {CLIPS}")
has_decord = pytest.mark.skipif(module._decord() is None, reason="decord has no wheel for this machine")
SIZE = (37, 49)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("decode") / "set"
    make_synthetic(root, classes=("Rise",), groups=2, clips=2)
    return root


@pytest.fixture(scope="module", params=["c01.avi", "c02.mp4"])
def video(request: pytest.FixtureRequest, made: Path) -> Path:
    return made / "Rise" / f"v_Rise_g01_{request.param}"


def by_hand(path: Path, stream: int = 0, quarter_turns: int = 0) -> np.ndarray:
    """Return the frames, decoded in the simplest way."""
    with av.open(str(path)) as container:
        pictures = [np.rot90(f.to_ndarray(format="rgb24"), quarter_turns) for f in container.decode(video=stream)]
    images = [Image.fromarray(np.ascontiguousarray(picture)) for picture in pictures]
    return np.stack([np.asarray(image.resize(SIZE[::-1], Image.Resampling.BILINEAR)) for image in images])


def damaged(source: Path, target: Path, change) -> Path:
    data = bytearray(source.read_bytes())
    target = target / f"damaged{source.suffix}"
    target.write_bytes(change(data))
    return target


@needs_shared
@pytest.mark.parametrize(
    ("name", "frames", "stream", "turns", "decoder"),
    [
        ("odd/av1_video.mkv", 125, 0, 0, "pyav"),
        ("odd/flipping_a_pancake.mkv", 310, 0, 0, "decord"),
        ("odd/h265_10bits.mp4", 30, 0, 0, "pyav"),
        ("odd/nasa_13013.mp4", 390, 1, 0, "pyav"),
        ("odd/unordered.mov", 4, 0, 0, "decord"),
        ("odd/video_90.mov", 3, 0, 3, "pyav"),
        ("ucf101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", 164, 0, 0, "decord"),
        ("ucf101/BaseballPitch/v_BaseballPitch_g01_c01.avi", 107, 0, 0, "decord"),
        ("fight/fight/fi001.mp4", None, 0, 0, "decord"),
    ],
)
def test_real_files(name: str, frames: int | None, stream: int, turns: int, decoder: str) -> None:
    path = CLIPS / name
    got, by = decoded(path, SIZE)
    expected = by_hand(path, stream, turns)
    assert got.dtype == np.uint8
    assert got.shape == (frames or len(expected), *SIZE, 3)
    np.testing.assert_array_equal(got, expected)
    assert by == (decoder if module._decord() else "pyav")


@needs_shared
def test_a_file_that_does_not_keep_its_promise_is_refused() -> None:
    with pytest.raises(Refused, match="promises 50 frames, only 28 decode"):
        decoded(CLIPS / "odd" / "corrupted.mp4", SIZE)


def test_synthetic_files(video: Path) -> None:
    frames, _ = decoded(video, SIZE)
    assert 90 <= len(frames) <= 110
    np.testing.assert_array_equal(frames, by_hand(video))


@has_decord
def test_both_decoders_give_the_same_bytes(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_decord, first = decoded(video, SIZE)
    monkeypatch.setattr(module, "_decord", lambda: None)
    without, second = decoded(video, SIZE)
    assert (first, second) == ("decord", "pyav")
    np.testing.assert_array_equal(with_decord, without)


@pytest.mark.parametrize("fault", ["raises", "repeats the last frame", "counts short"])
def test_a_decord_that_fails_is_not_believed(fault: str, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = by_hand(video)
    n = len(expected)
    pictures = [frame.to_ndarray(format="rgb24") for frame in av.open(str(video)).decode(video=0)]

    class Frame:
        def __init__(self, index: int) -> None:
            self.index = index

        def asnumpy(self) -> np.ndarray:
            if fault == "raises" and self.index == n // 2:
                raise RuntimeError("as decord does")
            return pictures[min(self.index, n - 5) if fault.startswith("repeats") else self.index]

    class Reader:
        def __init__(self, path: str, num_threads: int) -> None:
            pass

        def __len__(self) -> int:
            return n - 1 if fault == "counts short" else n

        def __getitem__(self, index: int) -> Frame:
            return Frame(index)

    monkeypatch.setattr(module, "_decord", lambda: type("decord", (), {"VideoReader": Reader}))
    frames, decoder = decoded(video, SIZE)
    assert decoder == "pyav"
    np.testing.assert_array_equal(frames, expected)


def test_half_a_file_is_refused(video: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"promises .* frames, only|is not a video that can be opened"):
        decoded(damaged(video, tmp_path, lambda data: data[: len(data) // 2]), SIZE)


def test_a_hole_in_a_file_is_refused(video: Path, tmp_path: Path) -> None:
    def hole(data: bytearray) -> bytearray:
        middle = len(data) // 2
        data[middle : middle + 3000] = bytes(3000)
        return data

    with pytest.raises(Refused, match=r"is damaged|only .* decode"):
        decoded(damaged(video, tmp_path, hole), SIZE)


@needs_shared
def test_a_matroska_file_cut_short_is_refused(tmp_path: Path) -> None:
    source = CLIPS / "odd" / "flipping_a_pancake.mkv"
    with pytest.raises(Refused, match=r"promises 10\.3 s, ends after"):
        decoded(damaged(source, tmp_path, lambda data: data[: len(data) // 2]), SIZE)


def test_things_that_are_no_videos(tmp_path: Path) -> None:
    (tmp_path / "empty.avi").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 200)
    (tmp_path / "noise.avi").write_bytes(np.random.Generator(np.random.Philox(0)).bytes(20_000))
    (tmp_path / "folder.mp4").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    reasons = {"empty.avi": "is empty", "folder.mp4": "is a folder", "gone.avi": "does not exist"}
    for name in ("empty.avi", "text.mp4", "noise.avi", "folder.mp4", "gone.avi"):
        with pytest.raises(Refused) as caught:
            decoded(tmp_path / name, SIZE)
        assert reasons.get(name, "cannot be opened") in str(caught.value) or "can be opened" in str(caught.value)
        assert str(tmp_path) not in str(caught.value)


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(Refused, match="no video stream"):
        decoded(tmp_path / "sound.mp4", SIZE)


def test_whatever_a_library_raises_is_a_refusal(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> np.ndarray:
        raise MemoryError("as libraries do")

    monkeypatch.setattr(module, "_decord", lambda: None)
    monkeypatch.setattr(module, "_with_pyav", broken)
    with pytest.raises(Refused, match="cannot be decoded: as libraries do"):
        decoded(video, SIZE)


def test_damage_leaves_stderr_clean(made: Path, tmp_path: Path) -> None:
    """FFmpeg writes from C, past Python's sys.stderr."""
    source = made / Video(0, "Rise", 1, 1).name
    broken = damaged(source, tmp_path, lambda data: data[: len(data) // 2])
    code = (
        "import sys; from pathlib import Path; from kdtune.clips.video.decode import *\n"
        "for path in sys.argv[1:]:\n"
        "    try: list(decode(Path(path), (37, 49))); print('decoded')\n"
        "    except Refused as refused: print('refused')\n"
    )
    command = [sys.executable, "-c", code, str(source), str(broken)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ, check=True)
    assert done.stdout.split() == ["decoded", "refused"]
    assert done.stderr == ""
