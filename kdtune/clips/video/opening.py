"""Open a video file and find its video stream, or refuse it with a reason.

The path is checked before FFmpeg opens it: a pipe would block, and a device may never end. FFmpeg reads this one file
and nothing else. Names such as "concat:a|b" or "http://…" are plain file names here. Playlists, pictures and text,
which FFmpeg would accept as videos, are refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition

from kdtune.parse import printable

#: Self-contained video containers and raw streams, by the names of FFmpeg's demuxers.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    *("avi", "flv", "live_flv", "kux", "asf", "asf_o", "mpeg", "mpegts", "mpegvideo", "ogg", "rm", "mxf", "nut", "gxf"),
    *("ivf", "yuv4mpegpipe", "gif", "apng", "dv", "h261", "h263", "h264", "hevc", "vvc", "m4v", "mjpeg", "obu", "vc1"),
    *("vc1test", "cavsvideo", "dirac", "wtv", "dhav", "nsv", "nuv", "swf", "bink", "smk", "roq", "flic", "film_cpk"),
)
#: Maximum pixels of a frame, 8192×8192. A broken header may ask for far more, and FFmpeg would allocate it.
MAX_PIXELS = 2**26
#: Dispositions of pictures that FFmpeg lists as video streams.
PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails
#: File type → message, for paths that are no regular files.
KINDS = {
    stat.S_IFDIR: "is a folder",
    stat.S_IFIFO: "is a pipe, not a file",
    stat.S_IFSOCK: "is a socket, not a file",
    stat.S_IFCHR: "is a device, not a file",
    stat.S_IFBLK: "is a device, not a file",
}

# Silence FFmpeg, which logs to stderr from C. Every error that matters becomes a reason for refusal.
av.logging.set_level(None)


class Refused(Exception):
    """The file cannot be used as a video; the text is the reason."""


def ffmpeg_name(path: Path) -> str:
    """Return a URL by which FFmpeg opens the file `path`, even if its name looks like a protocol."""
    return f"file:{path}"


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open a video; yield its container and its main video stream, set to decode in one thread.

    The main stream is the one that FFmpeg ranks best, but never a cover picture. Raises Refused.
    """
    _check_file(path)
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(FORMATS),
        "max_pixels": str(MAX_PIXELS),  # for the decoders that probe the streams
    }
    try:
        container = av.open(ffmpeg_name(path), options=options, metadata_errors="replace")
    except av.ArgumentError:  # FFmpeg's error for a format that is not in FORMATS
        raise Refused("is not a video that can be opened: its format is unknown, or not a video format") from None
    except Exception as error:
        raise Refused(f"is not a video that can be opened: {plain(error)}") from None
    with container:
        stream = _main(container)
        if stream.width * stream.height > MAX_PIXELS:
            raise Refused(f"has frames of {stream.width}×{stream.height} pixels; at most {MAX_PIXELS:,} are read")
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        yield container, stream


def plain(error: BaseException) -> str:
    """Return the message of an error from FFmpeg or a decoder, without its number, file name and call."""
    if isinstance(error, av.FFmpegError) and error.strerror:
        return printable(error.strerror)
    lines = str(error).strip().splitlines()
    return printable(lines[-1]) if lines else type(error).__name__


def _check_file(path: Path) -> None:
    """Raise Refused unless `path` is a readable file that is not empty."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise Refused(KINDS.get(stat.S_IFMT(found.st_mode), "is not a file"))
        if found.st_size == 0:
            raise Refused("is empty")
        with path.open("rb"):
            pass
    except (FileNotFoundError, NotADirectoryError):
        raise Refused("does not exist") from None
    except OSError as error:
        raise Refused(f"cannot be read: {error.strerror or plain(error)}") from None
    except ValueError:  # Python's error for a NUL in the name
        raise Refused("does not exist") from None


def _main(container: InputContainer) -> av.VideoStream:
    """Return the video stream that FFmpeg ranks best among those with a decoder, pictures excluded. Raises Refused."""
    streams = container.streams.video
    videos = [stream for stream in streams if not stream.disposition & PICTURES]
    if not videos:
        raise Refused("has no video stream, only a cover picture" if streams else "has no video stream")
    decodable = [stream for stream in videos if stream.codec_context is not None and stream.time_base is not None]
    if not decodable:
        raise Refused("has no video stream that can be decoded: its codec is unknown")
    best = container.streams.best("video")
    return next((stream for stream in decodable if best is not None and stream.index == best.index), decodable[0])
