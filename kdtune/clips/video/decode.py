"""Decode a video into frames, or refuse it with a plain reason. A folder of frames is a video, too (pictures.py).

Pixels and frames are those that FFmpeg's own player shows. Every file is decoded twice, in order. The first pass uses
PyAV without converting pixels (a tenth of the work) and checks the file against its promises (promise.py): the number
of frames in the header, or of packets and seconds where the header does not say; no decoding errors; no frames that
FFmpeg marks as damaged. decord detects none of that: it repeats frames or shows garbage. The second pass makes the
frames:

- with decord for plain files: one video stream, upright, 8-bit 4:2:0, one size, every packet shown. Both decoders give
  the same bytes for these; the frame count and the first and last frame must agree with the first pass;
- with PyAV for all other files (decord picks the wrong stream of several, cannot read AV1, gets 10-bit colours wrong
  and ignores mirrors and edit lists), and wherever decord is not installed (it has no wheels for ARM and recent macOS),
  fails or disagrees.

A file that decodes only in part is refused ("promises 50 frames, only 28 decode"): a broken copy must not pass for the
listed video. Without a decoding error, at most 2 frames or 1 % may be missing, because packed MPEG-4 has packets
without a frame. Frames are turned upright (geometry.py).

Frames are yielded one at a time, so that a video of any length needs the memory of a few frames. If decord turns out
wrong only at its last frame, its frames are void and the frames start again from number 0.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import av
import numpy as np
from av.container import InputContainer
from PIL import Image

from kdtune.clips.frames.tiers import Frame
from kdtune.clips.video.geometry import UPRIGHT, Pictures, display_matrix, turn_of
from kdtune.clips.video.opening import Refused, ffmpeg_name, open_video, plain
from kdtune.clips.video.pictures import decode_pictures, picture_header
from kdtune.clips.video.promise import PromiseCheck, header_promise
from kdtune.scoped import kept_process

#: Version of the rules for reading videos. Raise it, and TRAINER_SEMANTICS with it, when the same file gives other
#: frames than before or is no longer refused. It is part of a clip store's folder name, so that frames read by older
#: rules are never reused.
#: 2: the whole display matrix; packets that are not shown promise no frame; a length is the end minus the start.
READING = 2
#: Pixel formats that decord and PyAV decode to the same bytes.
PLAIN_FORMATS = {"yuv420p", "yuvj420p"}


@dataclass(frozen=True)
class _Checked:
    """What the first pass found in a sound file."""

    frames: int
    plain: bool  # whether decord can be trusted with the file
    first: np.ndarray  # first frame, as `decode` yields it
    last: np.ndarray  # last frame, as `decode` yields it


def decode(path: Path, size: tuple[int, int]) -> Iterator[Frame]:
    """Yield a video's frames in order as uint8 RGB, resized to `size` = (height, width) in pixels.

    A frame of number 0 voids all frames before it. Raises only Refused, possibly after some frames.
    """
    try:
        if os.path.isdir(path):
            for number, pixels, decoder in decode_pictures(path):
                yield Frame(number, resized(pixels, size), decoder)
            return
        checked = _check(path, size)
        agreed = checked.plain and (yield from _with_decord(path, size, checked))
        if not agreed:
            yield from _with_pyav(path, size, checked)
    except Refused:
        raise
    except Exception as error:  # whatever a decoding library raises on a broken file
        raise Refused(f"cannot be decoded: {plain(error)}") from None


def header_frames(path: Path) -> int:
    """Return the number of frames that the header promises, or an estimate from its seconds; 0 if it is no video."""
    if os.path.isdir(path):
        return _of_pictures(path)[0]
    return _of_header(path, lambda container, stream: header_promise(container, stream, path.stat().st_size))


def header_pixels(path: Path) -> int:
    """Return the pixels of one frame, width times height; 0 if the file is no video."""
    if os.path.isdir(path):
        _, height, width = _of_pictures(path)
        return height * width
    return _of_header(path, lambda _, stream: stream.width * stream.height)


def _of_header(path: Path, ask: Callable[[InputContainer, av.VideoStream], int]) -> int:
    """Return what the header says of the main video stream; 0 where the file is refused."""
    try:
        with open_video(path) as (container, stream):
            return ask(container, stream)
    except Exception:
        return 0  # decoding the file reports the reason


def _of_pictures(folder: Path) -> tuple[int, int, int]:
    """Return number, height and width of a folder's frames; zeros where the folder is refused."""
    try:
        return picture_header(folder)
    except Exception:
        return 0, 0, 0  # decoding the folder reports the reason


def first_frame(path: Path, size: tuple[int, int]) -> np.ndarray | None:
    """Return the first frame, (height, width, 3) uint8; None where it cannot be decoded."""
    try:
        if os.path.isdir(path):
            return resized(next(decode_pictures(path)).pixels, size)
        with open_video(path) as (container, stream):
            return resized(Pictures().picture(next(_frames(container, stream))), size)
    except Exception:
        return None


def decoder_versions() -> dict[str, str]:
    """Return the installed decoders with their versions: frames may depend on them."""
    versions = {"pyav": importlib.metadata.version("av")}
    if _decord() is not None:
        versions["decord"] = importlib.metadata.version("decord")
    return versions


def _check(path: Path, size: tuple[int, int]) -> _Checked:
    """Decode everything, but convert only the first and last frame. Raises Refused where a promise is broken."""
    with open_video(path) as (container, stream):
        promise = PromiseCheck(path, container, stream)
        shapes = set[tuple[int, int, str]]()
        ends: list[av.VideoFrame] = []  # the first and the last frame
        upright = True
        for frame in _frames(container, stream, promise):
            ends = [ends[0] if ends else frame, frame]
            promise.frames += 1
            promise.damaged += frame.is_corrupt
            shapes.add((frame.width, frame.height, frame.format.name))
            upright = upright and turn_of(display_matrix(frame)) == UPRIGHT
        promise.check()
        pictures = Pictures()
        first, last = (resized(pictures.picture(frame), size) for frame in ends)
        trusted = (
            len(container.streams.video) == 1
            and upright
            and promise.all_shown
            and len(shapes) == 1
            and {name for _, _, name in shapes} <= PLAIN_FORMATS
        )
        return _Checked(promise.frames, trusted, first, last)


def _frames(
    container: InputContainer, stream: av.VideoStream, promise: PromiseCheck | None = None
) -> Iterator[av.VideoFrame]:
    """Decode the stream in order; report every packet of the file and the first error to `promise`.

    Raises FFmpegError where `promise` is None.
    """
    for packet in container.demux(stream) if promise is None else container.demux():
        if promise is not None:
            promise.add(packet)
            if promise.trouble:
                continue  # after an error, packets are counted but not decoded
        # An empty packet repeats the last picture. FFmpeg's decoders would take it for the end.
        if packet.size and packet.stream.index == stream.index:
            yield from _decoded(stream, packet, promise)
    if promise is None or not promise.trouble:
        yield from _decoded(stream, None, promise)


def _decoded(stream: av.VideoStream, packet: av.Packet | None, promise: PromiseCheck | None) -> list[av.VideoFrame]:
    try:
        return stream.decode(packet)
    except av.FFmpegError as error:
        if promise is None:
            raise
        promise.trouble = plain(error)
        return []


def _decord() -> ModuleType | None:
    try:
        with kept_process("PATH"):
            import decord
    except Exception:  # absent, or present with a library that does not load
        return None
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _with_decord(path: Path, size: tuple[int, int], checked: _Checked) -> Generator[Frame, None, bool]:
    """Yield the frames. Return False where they cannot be trusted and PyAV has to decode the file."""
    decord = _decord()
    if decord is None:
        return False
    try:
        reader = decord.VideoReader(ffmpeg_name(path), num_threads=1)
        if len(reader) != checked.frames:
            return False
        for number in range(len(reader)):
            pixels = resized(reader[number].asnumpy(), size)
            for known, place in ((checked.first, 0), (checked.last, len(reader) - 1)):
                if number == place and not np.array_equal(pixels, known):
                    return False
            yield Frame(number, pixels, "decord")
    except Exception:  # decord's error types depend on how it fails; the file itself is sound
        return False
    return True


def _with_pyav(path: Path, size: tuple[int, int], checked: _Checked) -> Iterator[Frame]:
    pictures, number = Pictures(), -1
    with open_video(path) as (container, stream):
        for number, frame in enumerate(_frames(container, stream)):
            yield Frame(number, resized(pictures.picture(frame), size), "pyav")
    if number + 1 != checked.frames:
        raise Refused(f"has {checked.frames} frames when read once, {number + 1} when read again")


def resized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize bilinearly with antialiasing, as PCL resizes PIL frames."""
    height, width = size
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
