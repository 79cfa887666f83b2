"""A video file to its frames, or a plain reason why not.

Every file is decoded twice, each time once and in order. First PyAV decodes without converting pixels (a tenth of the
work) and holds the file to its promises: the number of frames in the header, or of packets and seconds where the header
does not say; no decoding errors; no frames that FFmpeg marks as damaged. decord sees none of that: it repeats frames or
shows garbage. Then the frames are made:

- by decord for plain files: one video stream, upright, 8-bit 4:2:0. Both decoders give the same bytes for these, and
  their number and the first and last frame must agree with the first pass;
- by PyAV for all other files (decord picks another of several streams, cannot read AV1, gets 10-bit colours wrong), and
  for all files where decord is not installed (it has no wheels for ARM and recent macOS), fails or disagrees.

A file that decodes in part is refused ("promises 50 frames, only 28 decode"): it is not the video that was listed, and
a broken copy must not pass for the whole. At most 2 frames or 1 % may be missing where there was no error: AVI headers
count dropped frames and the empty frames of packed MPEG-4. Frames are turned upright by the file's rotation. Of
several video streams the one that FFmpeg thinks best is taken.

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
from av.video.reformatter import VideoReformatter
from PIL import Image

from kdtune.clips.tiers import Frame

#: Raised when the same file gives other frames than before, or is no longer refused. Names the folders of clip stores,
#: so that none is taken for what an older kdtune read otherwise. Raise TRAINER_SEMANTICS with it.
#: 2: the whole display matrix; packets that are not shown promise no frame; a length is the end minus the start.
READING = 2
#: What decord decodes as PyAV does.
PLAIN_FORMATS = {"yuv420p", "yuvj420p"}
#: What may be missing without a decoding error.
MISSING_FRAMES, MISSING_SHARE = 2, 0.01

# FFmpeg writes its complaints to stderr from C; every one that matters becomes a reason here.
av.logging.set_level(None)


class Refused(Exception):
    """A file that is not used; the text is the reason."""


@dataclass(frozen=True)
class _Checked:
    """A whole file, as the first pass found it."""

    stream: int  # index of the main video stream
    frames: int
    plain: bool  # decord can be trusted with it
    first: np.ndarray  # the first and the last frame, as `decode` yields them
    last: np.ndarray


def decode(path: Path, size: tuple[int, int]) -> Iterator[Frame]:
    """A video's frames in order, resized to `size` = (height, width) in pixels, uint8 RGB; by "decord" or "pyav".

    A frame of number 0 voids all frames before it. Raises Refused, at any frame, and nothing else.
    """
    if not path.is_file():
        raise Refused("is a folder" if path.is_dir() else "does not exist")
    try:
        if path.stat().st_size == 0:
            raise Refused("is empty")
        checked = _check(path, size)
        agreed = checked.plain and (yield from _with_decord(path, size, checked))
        if not agreed:
            yield from _with_pyav(path, size, checked)
    except Refused:
        raise
    except Exception as error:  # whatever a decoding library raises on a broken file
        raise Refused(f"cannot be decoded: {_plain(error)}") from None


def header_frames(path: Path) -> int:
    """How many frames the file's header promises, or its seconds or packets where it does not say; 0 for no video."""

    def frames(container: InputContainer, stream: av.VideoStream) -> int:
        promised = stream.frames or round(_duration_s(stream) * float(stream.average_rate or 0))
        if not promised:
            promised = sum(packet.size > 0 for packet in container.demux(stream))
        return min(promised, path.stat().st_size)  # a broken header may promise anything, but no frame is free

    return _of_header(path, frames)


def header_pixels(path: Path) -> int:
    """Width times height of the video's frames; 0 for no video."""
    return _of_header(path, lambda _, stream: stream.width * stream.height)


def _of_header(path: Path, ask: Callable[[InputContainer, av.VideoStream], int]) -> int:
    """What a file says of its main video stream; 0 where it has none."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.best("video")
            return ask(container, stream) if isinstance(stream, av.VideoStream) else 0
    except Exception:
        return 0  # its reason is told when it is decoded


def first_frame(path: Path, size: tuple[int, int]) -> np.ndarray | None:
    """(height, width, 3) uint8, or None where there is none to be had."""
    try:
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
            return _upright(frame, VideoReformatter(), size)
    except Exception:
        return None


def decoder_versions() -> dict[str, str]:
    """The decoders that are here, with their versions: frames may depend on them."""
    versions = {"pyav": importlib.metadata.version("av")}
    if _decord() is not None:
        versions["decord"] = importlib.metadata.version("decord")
    return versions


def _check(path: Path, size: tuple[int, int]) -> _Checked:
    """The first pass: decodes everything, converts two frames, and refuses what does not keep its promises."""
    try:
        container = av.open(str(path))
    except Exception as error:
        raise Refused(f"is not a video that can be opened: {_plain(error)}") from None
    with container:
        stream = container.streams.best("video")
        if not isinstance(stream, av.VideoStream) or stream.time_base is None:
            raise Refused("has no video stream")
        stream.codec_context.thread_count = 1
        packets = frames = damaged = 0
        trouble, end_s = "", 0.0
        ends: list[av.VideoFrame] = []  # the first and the last frame
        for packet in container.demux(stream):
            packets += packet.size > 0
            if packet.size and packet.pts is not None:
                end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * stream.time_base))
            if trouble:
                continue  # what follows an error is counted, not decoded
            try:
                for frame in packet.decode():
                    if isinstance(frame, av.VideoFrame):
                        ends = [ends[0] if ends else frame, frame]
                        frames += 1
                        damaged += frame.is_corrupt
            except av.FFmpegError as error:
                trouble = _plain(error)
        _hold_to_promise(max(stream.frames, packets), frames, damaged, trouble)
        if not stream.frames:
            _hold_to_duration(_duration_s(stream), end_s)
        one_stream = len(container.streams.video) == 1
        plain = one_stream and all(frame.format.name in PLAIN_FORMATS and frame.rotation == 0 for frame in ends)
        turn = VideoReformatter()
        first, last = (_upright(frame, turn, size) for frame in ends)
        return _Checked(stream.index, frames, plain, first, last)


def _hold_to_promise(promised: int, frames: int, damaged: int, trouble: str) -> None:
    missing = promised - frames
    if missing > 0 and (trouble or missing > max(MISSING_FRAMES, MISSING_SHARE * promised)):
        raise Refused(f"promises {promised} frames, only {frames} decode" + (f" ({trouble})" if trouble else ""))
    if trouble or damaged:
        raise Refused("is damaged: " + (trouble or f"{damaged} of {frames} frames are broken"))
    if not frames:
        raise Refused("has no frames")


def _hold_to_duration(promised_s: float, end_s: float) -> None:
    """Matroska's header counts no frames, but its seconds tell when the end is cut off."""
    if end_s < promised_s - max(0.5, MISSING_SHARE * promised_s):
        raise Refused(f"promises {promised_s:.1f} s, ends after {end_s:.1f} s")


def _duration_s(stream: av.VideoStream) -> float:
    """The stream's own length as its header has it, 0 where it has none."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    hours, _, rest = stream.metadata.get("DURATION", "0:0:0").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return 0.0


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
        reader = decord.VideoReader(str(path), num_threads=1)
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
    turn, number = VideoReformatter(), -1
    with av.open(str(path)) as container:
        stream = container.streams[checked.stream]
        assert isinstance(stream, av.VideoStream)
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(stream)):
            yield Frame(number, _upright(frame, turn, size), "pyav")
    if number + 1 != checked.frames:
        raise Refused(f"has {checked.frames} frames when it is read once, {number + 1} when it is read again")


def _upright(frame: av.VideoFrame, reformatter: VideoReformatter, size: tuple[int, int]) -> np.ndarray:
    """(height, width, 3) uint8. One reformatter for all frames of a video: setting one up costs a millisecond."""
    rgb = reformatter.reformat(frame, format="rgb24").to_ndarray()
    return _resized(np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90))), size)


def _resized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with antialiasing, as PCL resizes PIL frames."""
    height, width = size
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))


def _plain(error: Exception) -> str:
    """An FFmpeg error without its number, file name and call."""
    if isinstance(error, av.FFmpegError) and error.strerror:
        return error.strerror
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
