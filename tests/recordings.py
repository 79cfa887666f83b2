"""Small videos as cameras, editors and recorders write them, made with the ffmpeg command.

The command is the reference: kdtune's frames must equal those of FFmpeg's own player path.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg command is not installed")
#: Height and width of the compared frames.
SIZE = (48, 64)
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
#: Arguments of ffmpeg for each codec, by the names that the tests use.
CODECS: dict[str, tuple[str, ...]] = {
    "h264": X264,
    "h264 B-frames": ("-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-g", "12", "-pix_fmt", "yuv420p"),
    "h264 open GOP": (
        *("-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-g", "8", "-pix_fmt", "yuv420p"),
        *("-x264-params", "open-gop=1:scenecut=0"),
    ),
    "h264 10 bit": ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le"),
    "h264 interlaced": (*X264, "-flags", "+ildct+ilme", "-x264-params", "tff=1"),
    "h264 4:4:4": ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv444p"),
    "hevc": ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error", "-pix_fmt", "yuv420p"),
    "hevc 10 bit": (
        *("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error", "-pix_fmt", "yuv420p10le"),
    ),
    "mpeg4": ("-c:v", "mpeg4"),
    "mpeg4 B-frames": ("-c:v", "mpeg4", "-bf", "2"),
    "xvid": ("-c:v", "libxvid", "-bf", "2"),
    "mjpeg": ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p"),
    "mjpeg 4:2:2": ("-c:v", "mjpeg", "-pix_fmt", "yuvj422p"),
    "mpeg2": ("-c:v", "mpeg2video", "-bf", "2"),
    "mpeg1": ("-c:v", "mpeg1video"),
    "vp8": ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8"),
    "vp8 hidden": (
        *("-c:v", "libvpx", "-deadline", "good", "-cpu-used", "4", "-auto-alt-ref", "1", "-lag-in-frames", "16"),
        *("-b:v", "200k"),
    ),
    "vp9": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"),
    "flv1": ("-c:v", "flv"),
    "wmv2": ("-c:v", "wmv2"),
    "msmpeg4": ("-c:v", "msmpeg4"),
    "theora": ("-c:v", "libtheora"),
    "ffv1": ("-c:v", "ffv1"),
    "huffyuv": ("-c:v", "huffyuv"),
    "rawvideo": ("-c:v", "rawvideo", "-pix_fmt", "yuv420p"),
    "prores": ("-c:v", "prores_ks"),
    "h263": ("-c:v", "h263", "-s", "128x96"),
    "gif": ("-c:v", "gif"),
    "cinepak": ("-c:v", "cinepak"),
    "qtrle": ("-c:v", "qtrle"),
}
#: Codecs of each container, by its suffix.
CONTAINERS: dict[str, tuple[str, ...]] = {
    "mp4": (
        *("h264", "h264 B-frames", "h264 open GOP", "h264 10 bit", "h264 interlaced", "h264 4:4:4", "hevc"),
        *("hevc 10 bit", "mpeg4", "mpeg4 B-frames", "mjpeg", "mpeg2", "mpeg1", "vp9"),
    ),
    "mov": ("h264 B-frames", "hevc", "mpeg4 B-frames", "mjpeg", "mjpeg 4:2:2", "prores", "qtrle", "cinepak", "h263"),
    "m4v": ("h264 B-frames",),
    "3gp": ("h263",),
    "mkv": (
        *("h264 B-frames", "h264 open GOP", "h264 10 bit", "h264 interlaced", "hevc", "mpeg4 B-frames", "xvid"),
        *("mjpeg", "mpeg2", "vp8", "vp8 hidden", "vp9", "theora", "ffv1", "huffyuv", "prores", "wmv2"),
    ),
    "webm": ("vp8", "vp8 hidden", "vp9"),
    "avi": (
        *("h264", "h264 B-frames", "mpeg4", "mpeg4 B-frames", "xvid", "mjpeg", "mpeg2", "vp8", "ffv1", "huffyuv"),
        *("rawvideo", "wmv2", "msmpeg4", "cinepak", "flv1", "h263"),
    ),
    "ts": ("h264 B-frames", "h264 interlaced", "hevc", "mpeg2", "mpeg4"),
    "mts": ("h264 B-frames",),
    "mpg": ("mpeg2", "mpeg1"),
    "flv": ("flv1", "h264 B-frames"),
    "wmv": ("wmv2", "msmpeg4"),
    "ogv": ("theora",),
    "gif": ("gif",),
    "nut": ("ffv1",),
    "mxf": ("mpeg2",),
    "h264": ("h264 B-frames",),
}
#: Display matrices: a, b, c, d of geometry.py.
MATRICES: dict[str, tuple[float, float, float, float]] = {
    "upright": (1, 0, 0, 1),
    "mirrored": (-1, 0, 0, 1),
    "flipped": (1, 0, 0, -1),
    "180": (-1, 0, 0, -1),
    "90": (0, 1, -1, 0),
    "270": (0, -1, 1, 0),
    "transposed": (0, 1, 1, 0),
    "transposed the other way": (0, -1, -1, 0),
    "30": (0.8660254, 0.5, -0.5, 0.8660254),
    "enlarged": (2, 0, 0, 2),
    "nothing": (0, 0, 0, 0),
    "sheared": (1, 0, 1, 1),
}


@dataclass(frozen=True)
class Recipe:
    """A video by the name that a test shows."""

    name: str
    suffix: str
    make: Callable[[Path], None]

    def __str__(self) -> str:
        return f"{self.suffix}, {self.name}"


def ffmpeg(*arguments: object) -> None:
    """Run ffmpeg; skip the test where this ffmpeg lacks an encoder."""
    command = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if b"Unknown encoder" in done.stderr:
        pytest.skip(done.stderr.decode(errors="replace").strip())
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def pattern(seconds: float = 1, size: str = "64x48", rate: int = 25) -> tuple[str, ...]:
    """Return the input arguments of a moving picture that looks different in each of its eight orientations."""
    return "-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}"


def shown(path: Path) -> np.ndarray:
    """Return every frame that the ffmpeg command shows, (n, *SIZE, 3)."""
    command = ["ffmpeg", "-v", "error", "-i", f"file:{path}", "-map", "0:v:0", "-fps_mode", "passthrough"]
    command += ["-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"]
    data = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False).stdout
    frames, at = [], 0
    while at < len(data):
        begin = data.index(b"\n255\n", at) + 5
        width, height = map(int, data[at:begin].split()[1:3])
        at = begin + 3 * width * height
        pixels = np.frombuffer(data[begin:at], np.uint8).reshape(height, width, 3)
        frames.append(np.asarray(Image.fromarray(pixels).resize(SIZE[::-1], Image.Resampling.BILINEAR)))
    return np.stack(frames) if frames else np.zeros((0, *SIZE, 3), np.uint8)


def orient(path: Path, a: float, b: float, c: float, d: float) -> None:
    """Write a display matrix into the first track of an MP4 or MOV."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    numbers = [round(number * 2**16) for number in (a, b, 0, c, d, 0, 0, 0)]
    data[at : at + 36] = struct.pack(">9i", *numbers, 2**30)
    path.write_bytes(data)


def avi_chunks(path: Path) -> tuple[bytes, list[bytes]]:
    """Return what comes before the list of an AVI's chunks (without the RIFF head), and the chunks."""
    data = path.read_bytes()
    begin = data.index(b"movi") - 8
    end = begin + 8 + struct.unpack("<I", data[begin + 4 : begin + 8])[0]
    chunks, at = [], begin + 12
    while at < end:
        length = struct.unpack("<I", data[at + 4 : at + 8])[0]
        chunks.append(data[at : at + 8 + length + length % 2])
        at += len(chunks[-1])
    return data[12:begin], chunks


def write_avi(path: Path, header: bytes, chunks: list[bytes]) -> None:
    """Write an AVI of these chunks, with an index that is right."""
    index, at = b"", 4
    for chunk in chunks:
        index += chunk[:4] + struct.pack("<III", 16, at, struct.unpack("<I", chunk[4:8])[0])
        at += len(chunk)
    movi = b"".join(chunks)
    body = b"AVI " + header + b"LIST" + struct.pack("<I", 4 + len(movi)) + b"movi" + movi
    body += b"idx1" + struct.pack("<I", len(index)) + index
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)


def empty_chunks(path: Path, which: slice) -> None:
    """Make chunks of an AVI of one stream empty: "show the last picture again"."""
    header, chunks = avi_chunks(path)
    chunks[which] = [b"00dc" + bytes(4)] * len(chunks[which])
    write_avi(path, header, chunks)


def trimmed(path: Path, codec: str, *, end: str = "") -> None:
    """Cut 0.7 s off a recording without encoding it again, as phones do; keep `end` seconds, or all."""
    whole = path.with_name(f"whole_{path.stem}.{path.suffix[1:] if end else 'mkv'}")
    ffmpeg(*pattern(2), *CODECS[codec], "-g", "12", whole)
    ffmpeg("-ss", "0.7", "-i", whole, *(("-t", end) if end else ()), "-c", "copy", path)
    whole.unlink()


def recipes() -> Iterator[Recipe]:
    """Yield the whole matrix of containers, codecs and other properties of a file."""
    for suffix, codecs in CONTAINERS.items():
        for codec in codecs:
            yield _encoded(codec, suffix, codec)
    for suffix, codec in (("mp4", "h264 B-frames"), ("mov", "mjpeg")):
        for name in MATRICES:
            yield Recipe(f"{codec}, matrix {name}", suffix, _oriented(codec, name))
    for suffix in ("mkv", "flv", "avi"):  # the matrix in the stream itself, with one picture
        for turn in ("rotate=180", "flip=horizontal", "flip=vertical"):
            bsf = f"h264_metadata=display_orientation=insert:{turn}"
            yield _encoded(f"h264 with {turn}", suffix, "h264", "-bsf:v", bsf)
    timed = {
        "mp4": ("h264 B-frames", "h264 open GOP", "hevc", "mpeg4", "mpeg2", "vp9"),
        "mov": ("h264 B-frames", "mpeg4 B-frames"),
        "mkv": ("h264", "h264 open GOP", "hevc", "mjpeg", "vp9"),
        "avi": ("mpeg4", "mpeg4 B-frames", "mjpeg", "vp9"),
        "ts": ("h264 B-frames", "hevc", "mpeg2"),
        "flv": ("h264", "h264 open GOP"),
    }
    for suffix, codecs in timed.items():
        for codec in codecs:
            yield Recipe(f"{codec}, trimmed", suffix, lambda path, codec=codec: trimmed(path, codec))
            yield Recipe(
                f"{codec}, trimmed at both ends", suffix, lambda path, codec=codec: trimmed(path, codec, end="0.8")
            )
            late = "1.5" if suffix == "avi" else "36600"
            yield _encoded(f"{codec}, from {late} s on", suffix, codec, "-output_ts_offset", late)
            select = "select='not(between(n,5,9)+between(n,14,21))'"
            yield _encoded(f"{codec}, frames dropped", suffix, codec, "-vf", select, "-fps_mode", "vfr")
            select = "select='not(mod(n,3))+lt(n,12)'"
            yield _encoded(f"{codec}, variable rate", suffix, codec, "-vf", select, "-fps_mode", "vfr")
    for suffix, codec in (("mp4", "h264"), ("mkv", "vp9"), ("avi", "mpeg4"), ("wmv", "wmv2"), ("flv", "flv1")):
        for size in ("66x50", "34x18", "98x54"):
            yield Recipe(
                f"{codec} of {size}",
                suffix,
                lambda path, codec=codec, size=size: ffmpeg(*pattern(size=size), *CODECS[codec], path),
            )
        yield _encoded(f"{codec} with longer sound", suffix, codec, before=("-f", "lavfi", "-i", "sine=duration=1.6"))
        yield _encoded(f"one frame of {codec}", suffix, codec, "-frames:v", "1")
        yield _encoded(f"{codec} with wide pixels", suffix, codec, "-vf", "setsar=2/1")
        yield Recipe(f"{codec} with a title in Latin-1", suffix, lambda path, codec=codec: latin_1(path, codec))
    for flags in (
        "frag_keyframe",
        "frag_keyframe+empty_moov",
        "dash+global_sidx+frag_keyframe+empty_moov",
        "faststart",
    ):
        yield _encoded(f"h264 B-frames, {flags}", "mp4", "h264 B-frames", "-movflags", flags)
    for suffix, codec in (("mkv", "h264 B-frames"), ("webm", "vp8")):
        yield _encoded(f"{codec}, live", suffix, codec, "-live", "1")


def latin_1(path: Path, codec: str) -> None:
    """Make a video whose title is not UTF-8, as older software writes it."""
    command = [b"ffmpeg", b"-v", b"error", b"-y", *(part.encode() for part in (*pattern(), *CODECS[codec]))]
    subprocess.run([*command, b"-metadata", b"title=caf\xe9", str(path).encode()], check=True, capture_output=True)


def _encoded(name: str, suffix: str, codec: str, *arguments: str, before: tuple[str, ...] = ()) -> Recipe:
    return Recipe(name, suffix, lambda path: ffmpeg(*pattern(), *before, *CODECS[codec], *arguments, path))


def _oriented(codec: str, matrix: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        ffmpeg(*pattern(), *CODECS[codec], path)
        orient(path, *MATRICES[matrix])

    return make
