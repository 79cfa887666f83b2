"""A video file to its frames, or a plain reason why not.

Pixels and frames are those that FFmpeg's own player shows. Every file is decoded twice, each time once and in order.
First PyAV decodes without converting pixels (a tenth of the work) and holds the file to its promises (promise.py): the
number of frames in the header, or of packets and seconds where the header does not say; no decoding errors; no frames
that FFmpeg marks as damaged. decord sees none of that: it repeats frames or shows garbage. Then the frames are made:

- by decord for plain files: one video stream, upright, 8-bit 4:2:0, one size, every packet shown. Both decoders give
  the same bytes for these, and their number and the first and last frame must agree with the first pass;
- by PyAV for all other files (decord picks another of several streams, cannot read AV1, gets 10-bit colours wrong,
  knows neither mirrors nor edit lists), and for all files where decord is not installed (it has no wheels for ARM and
  recent macOS), fails or disagrees.

A file that decodes in part is refused ("promises 50 frames, only 28 decode"): it is not the video that was listed, and
a broken copy must not pass for the whole. At most 2 frames or 1 % may be missing where there was no error: packed
MPEG-4 has packets without a frame. Frames are turned upright (geometry.py).

Frames are handed over one at a time, so that a video of any length needs the memory of a few frames. What decord gave
is void when only its last frame tells that it went wrong: then the frames begin with number 0 again.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import av
import numpy as np
from av.container import InputContainer
from PIL import Image

from kdtune.clips.geometry import UPRIGHT, Pictures, display_matrix, turn_of
from kdtune.clips.opening import Refused, ffmpeg_name, opened, plain
from kdtune.clips.promise import Reading, header_promise
from kdtune.clips.tiers import Frame

#: Raised when the same file gives other frames than before, or is no longer refused. Names the folders of clip stores,
#: so that none is taken for what an older kdtune read otherwise. Raise TRAINER_SEMANTICS with it.
#: 2: the whole display matrix; packets that are not shown promise no frame; a length is the end minus the start.
READING = 2
#: What decord decodes as PyAV does.
PLAIN_FORMATS = {"yuv420p", "yuvj420p"}


@dataclass(frozen=True)
class _Checked:
    """A whole file, as the first pass found it."""

    frames: int
    plain: bool  # decord can be trusted with it
    first: np.ndarray  # the first and the last frame, as `decode` yields them
    last: np.ndarray


def decode(path: Path, size: tuple[int, int]) -> Iterator[Frame]:
    """Yield a video's frames in order, resized to `size` = (height, width) in pixels, uint8 RGB; by "decord" or "pyav".

    A frame of number 0 voids all frames before it. Raises Refused, at any frame, and nothing else.
    """
    try:
        checked = _check(path, size)
        agreed = checked.plain and (yield from _with_decord(path, size, checked))
        if not agreed:
            yield from _with_pyav(path, size, checked)
    except Refused:
        raise
    except Exception as error:  # whatever a decoding library raises on a broken file
        raise Refused(f"cannot be decoded: {plain(error)}") from None


def header_frames(path: Path) -> int:
    """Return how many frames the file's header promises, or about how many its seconds hold; 0 for no video."""
    return _of_header(path, lambda container, stream: header_promise(container, stream, path.stat().st_size))


def header_pixels(path: Path) -> int:
    """Return the pixels of one frame, width times height; 0 for no video."""
    return _of_header(path, lambda _, stream: stream.width * stream.height)


def _of_header(path: Path, ask: Callable[[InputContainer, av.VideoStream], int]) -> int:
    """Return what the header says of the main video stream; 0 where the file is refused."""
    try:
        with opened(path) as (container, stream):
            return ask(container, stream)
    except Exception:
        return 0  # its reason is told when it is decoded


def first_frame(path: Path, size: tuple[int, int]) -> np.ndarray | None:
    """Return the first frame, (height, width, 3) uint8; None where it cannot be decoded."""
    try:
        with opened(path) as (container, stream):
            return _resized(Pictures().picture(next(_frames(container, stream))), size)
    except Exception:
        return None


def decoder_versions() -> dict[str, str]:
    """The decoders that are here, with their versions: frames may depend on them."""
    versions = {"pyav": importlib.metadata.version("av")}
    if _decord() is not None:
        versions["decord"] = importlib.metadata.version("decord")
    return versions


def _check(path: Path, size: tuple[int, int]) -> _Checked:
    """Decode everything, convert the first and the last frame; raise Refused where a promise is not kept."""
    with opened(path) as (container, stream):
        reading = Reading(path, container, stream)
        shapes = set[tuple[int, int, str]]()
        ends: list[av.VideoFrame] = []  # the first and the last frame
        upright = True
        for frame in _frames(container, stream, reading):
            ends = [ends[0] if ends else frame, frame]
            reading.frames += 1
            reading.damaged += frame.is_corrupt
            shapes.add((frame.width, frame.height, frame.format.name))
            upright = upright and turn_of(display_matrix(frame)) == UPRIGHT
        reading.check()
        pictures = Pictures()
        first, last = (_resized(pictures.picture(frame), size) for frame in ends)
        trusted = (
            len(container.streams.video) == 1
            and upright
            and reading.all_shown
            and len(shapes) == 1
            and {name for _, _, name in shapes} <= PLAIN_FORMATS
        )
        return _Checked(reading.frames, trusted, first, last)


def _frames(
    container: InputContainer, stream: av.VideoStream, reading: Reading | None = None
) -> Iterator[av.VideoFrame]:
    """Decode the stream in order, and tell `reading` of every packet of the file and of the first error.

    Raises FFmpegError where there is no `reading`.
    """
    for packet in container.demux(stream) if reading is None else container.demux():
        if reading is not None:
            reading.add(packet)
            if reading.trouble:
                continue  # what follows an error is counted, not decoded
        # An empty packet repeats the last picture. FFmpeg's decoders would take it for the end.
        if packet.size and packet.stream.index == stream.index:
            yield from _decoded(stream, packet, reading)
    if reading is None or not reading.trouble:
        yield from _decoded(stream, None, reading)


def _decoded(stream: av.VideoStream, packet: av.Packet | None, reading: Reading | None) -> list[av.VideoFrame]:
    try:
        return stream.decode(packet)
    except av.FFmpegError as error:
        if reading is None:
            raise
        reading.trouble = plain(error)
        return []


def _decord() -> ModuleType | None:
    try:
        import decord
    except Exception:  # absent, or present with a library that does not load
        return None
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _with_decord(path: Path, size: tuple[int, int], checked: _Checked) -> Generator[Frame, None, bool]:
    """Yields the frames; returns False where they are not to be believed, and PyAV must serve."""
    decord = _decord()
    if decord is None:
        return False
    try:
        reader = decord.VideoReader(ffmpeg_name(path), num_threads=1)
        if len(reader) != checked.frames:
            return False
        for number in range(len(reader)):
            pixels = _resized(reader[number].asnumpy(), size)
            for known, place in ((checked.first, 0), (checked.last, len(reader) - 1)):
                if number == place and not np.array_equal(pixels, known):
                    return False
            yield Frame(number, pixels, "decord")
    except Exception:  # decord's error types depend on how it fails; the file itself is sound
        return False
    return True


def _with_pyav(path: Path, size: tuple[int, int], checked: _Checked) -> Iterator[Frame]:
    pictures, number = Pictures(), -1
    with opened(path) as (container, stream):
        for number, frame in enumerate(_frames(container, stream)):
            yield Frame(number, _resized(pictures.picture(frame), size), "pyav")
    if number + 1 != checked.frames:
        raise Refused(f"has {checked.frames} frames when it is read once, {number + 1} when it is read again")


def _resized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with antialiasing, as PCL resizes PIL frames."""
    height, width = size
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
