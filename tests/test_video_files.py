"""Any path leads to a video or is refused with a reason: no traceback, hang or crash, and no other file is read."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
from helpers import ROOT, decoded
from recordings import CODECS, SIZE, ffmpeg, needs_ffmpeg, pattern

from kdtune.clips.video.decode import Refused, first_frame, header_frames, header_pixels

#: Decode every file named on stdin, one per line; print a JSON line for each, and finally the peak memory in MiB.
CHILD = """
import json, os, sys, time
from pathlib import Path
from kdtune.clips.video.decode import Refused, decode, first_frame, header_frames, header_pixels
if len(sys.argv) > 1: os.setuid(int(sys.argv[1]))
for line in sys.stdin:
    path, began = Path(json.loads(line)), time.process_time()
    print(json.dumps(str(path)), end="\\t", flush=True)
    seen = [header_frames(path), header_pixels(path), first_frame(path, (48, 64)) is not None]
    try:
        frames = 0
        for frame in decode(path, (48, 64)):
            assert frame.pixels.shape == (48, 64, 3)
            frames = frame.number + 1
        said = frames
    except Refused as refused:
        said = str(refused)
    print(json.dumps([said, seen, time.process_time() - began]), flush=True)
# Not ru_maxrss: a process starts with that of the one that it was forked from.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(int(peak.split()[1]) // 1024)
"""
#: Processor time of one file, in seconds, above which it counts as hanging; a file here takes about 0.05 s.
HANGS_S = 5
Said = dict[str, int | str]  # the number of frames, or the reason


def in_child(paths: list[Path], user: int | None = None) -> Said:
    """Decode the files in another process, which C code may crash or block. Return the result for each."""
    command = [sys.executable, "-c", CHILD, *([str(user)] if user else [])]
    lines = "".join(json.dumps(str(path)) + "\n" for path in paths)
    done = subprocess.run(
        command, input=lines, capture_output=True, text=True, cwd=ROOT, timeout=60 + HANGS_S * len(paths), check=False
    )
    # decord has an older FFmpeg and complains about some headers; PyAV then decodes.
    complaints = [line for line in done.stderr.splitlines() if "video_reader.cc" not in line]
    assert (done.returncode, complaints) == (0, []), (done.stdout[-500:], done.stderr[-2000:])
    *rows, peak = done.stdout.splitlines()
    results = {json.loads(name): json.loads(result) for name, result in (row.split("\t") for row in rows)}
    slow = {name: seconds for name, (_, _, seconds) in results.items() if seconds > HANGS_S}
    assert not slow
    assert int(peak) < 1500, "MiB of memory"
    assert len(results) == len(paths)
    return {name: said for name, (said, _, _) in results.items()}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "small.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 64, 48
        for number in range(10):
            picture = np.random.Generator(np.random.Philox(number)).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    return path


def test_things_that_are_no_files(video: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(tmp_path, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/socket.mp4")  # a short name: paths of sockets are limited
        os.close(here)
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "dangling.mp4").symlink_to("gone")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "in_file.mp4").symlink_to(video / "x.mp4")
    reasons = {
        "pipe.mp4": "is a pipe",
        "socket.mp4": "is a socket",
        "device.mp4": "is a device",
        "folder.mp4": "is a folder",
        "loop.mp4": "cannot be read: Too many levels of symbolic links",
        "dangling.mp4": "does not exist",
        "empty.mp4": "is empty",
        "in_file.mp4": "does not exist",
        "n" * 300: "cannot be read: File name too long",
        "nul\0.mp4": "does not exist",
    }
    said = in_child([tmp_path / name for name in reasons])
    for name, reason in reasons.items():
        assert str(said[str(tmp_path / name)]).startswith(reason), name


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become another user")
def test_a_file_that_may_not_be_read(video: Path) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's folders are closed to other users
        folder = Path(name)
        folder.chmod(0o711)
        (folder / "mine.avi").write_bytes(video.read_bytes())
        (folder / "mine.avi").chmod(0o600)
        (folder / "closed").mkdir(mode=0o700)
        (folder / "closed" / "inside.avi").write_bytes(video.read_bytes())
        said = in_child([folder / "mine.avi", folder / "closed" / "inside.avi"], user=65534)
    assert set(said.values()) == {"cannot be read: Permission denied"}


@pytest.mark.parametrize(
    "name",
    [
        "concat:a|b.avi",
        "http:x.avi",
        "file:x.avi",
        "pipe:0",
        "new\nline.avi",
        "caf\udce9.avi",
        "-i.avi",
        "%d.avi",
        "ü.avi",
    ],
)
def test_any_name_is_the_name_of_a_file(
    name: str, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(video.read_bytes())
    expected, _ = decoded(video, SIZE)
    np.testing.assert_array_equal(decoded(Path(name), SIZE)[0], expected)
    assert header_frames(Path(name)) == len(expected)
    assert header_pixels(Path(name)) > 0


def test_lists_of_other_files_and_pictures_are_no_videos(video: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.avi").write_bytes(video.read_bytes())
    texts = {
        "playlist.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nsecret.avi\n#EXT-X-ENDLIST\n",
        "concat.mp4": "ffconcat version 1.0\nfile secret.avi\n",
        "session.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "picture.mp4": "P6\n8 8\n255\n" + "x" * 192,
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    said = in_child([tmp_path / name for name in texts])
    assert all(isinstance(reason, str) and "can be opened" in reason for reason in said.values()), said


@needs_ffmpeg
def test_frames_beyond_any_measure_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.avi"
    ffmpeg(*pattern(0.2), *CODECS["mjpeg"], path)
    size = b"\x08\x00\x30\x00\x40"  # of the JPEGs: 8 bits, height, width
    data = path.read_bytes()
    assert data.count(size) == 5
    path.write_bytes(data.replace(size, b"\x08" + struct.pack(">HH", 60_000, 60_000)))
    assert isinstance(in_child([path])[str(path)], str)


BASES = {
    "mp4": "h264 B-frames",
    "mov": "mjpeg",
    "mkv": "vp9",
    "webm": "vp8",
    "avi": "mpeg4",
    "ts": "mpeg2",
    "flv": "flv1",
}
MORE = {"wmv": "wmv2", "ogv": "theora", "mpg": "mpeg1", "gif": "gif", "nut": "ffv1", "h264": "h264", "3gp": "h263"}


def damaged(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Return `data` cut, with bits flipped, with a hole, with a piece of `other`, or with pieces twice or gone."""
    changed = bytearray(data)
    start, length = (int(rng.integers(0, len(data))) for _ in range(2))
    match int(rng.integers(0, 6)):
        case 0:
            del changed[start:]
        case 1:
            for place in rng.integers(0, len(data), int(rng.integers(1, 30))):
                changed[place] ^= 1 << int(rng.integers(0, 8))
        case 2:
            changed[start : start + length] = bytes(len(changed[start : start + length]))
        case 3:
            changed[start:] = other[start:]
        case 4:
            changed[start:start] = changed[start : start + length]
        case _:  # the header, where sizes and counts are
            for place in rng.integers(0, min(len(data), 1200), int(rng.integers(1, 6))):
                changed[place] = int(rng.integers(0, 256))
    return bytes(changed)


@needs_ffmpeg
@pytest.mark.parametrize("count", [pytest.param(12, id="few"), pytest.param(2000, id="many", marks=pytest.mark.slow)])
def test_damaged_videos(count: int, tmp_path: Path) -> None:
    bases = BASES if count < 100 else BASES | MORE
    whole = {}
    for suffix, codec in bases.items():
        ffmpeg(*pattern(0.6), *CODECS[codec], tmp_path / f"whole.{suffix}")
        whole[suffix] = (tmp_path / f"whole.{suffix}").read_bytes()
    suffixes, paths = list(bases), []
    for number in range(count):
        rng = np.random.Generator(np.random.Philox([16, number]))
        suffix, other = suffixes[number % len(suffixes)], suffixes[int(rng.integers(0, len(suffixes)))]
        lie = other if rng.random() < 0.2 else suffix
        paths.append(tmp_path / f"{number}.{lie}")
        paths[-1].write_bytes(damaged(whole[suffix], whole[other], rng))
    said = in_child(paths)
    refused = [reason for reason in said.values() if isinstance(reason, str)]
    print(f"{len(refused)} of {count} are refused, {count - len(refused)} are read")
    assert all(refused)
    assert not any(str(tmp_path) in reason or "\n" in reason for reason in refused)
    assert len(refused) > count // 3


def test_what_is_refused_has_no_frames_to_survey(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in ("text.mp4", "pipe.mp4", "gone.mp4", "nul\0"):
        assert (header_frames(tmp_path / name), header_pixels(tmp_path / name)) == (0, 0)
        assert first_frame(tmp_path / name, SIZE) is None
        with pytest.raises(Refused):
            decoded(tmp_path / name, SIZE)
