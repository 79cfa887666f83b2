"""Check a video against what its container promises: how many frames a player shows, and when the last one ends.

A file that decodes to less than it promises was cut off or damaged, so the promise must be exact. These promise no
frame:

- packets that the file marks as not shown, by an edit list of MP4 or MOV (a trim, a cut without encoding);
- empty chunks of an AVI ("show the last picture again"), which its header counts but no decoder decodes;
- VP8 packets whose frame is only a reference (alternate references);
- pictures before the first key picture, in stream order or by the clock: a file cut out of a longer one begins with
  them (an open GOP, a broadcast), and the pictures that they refer to are missing.

A length is the end minus the start: the clock of a recorder or of a cut stream need not begin at 0.
"""

from __future__ import annotations

import math
from pathlib import Path

import av
from av.container import InputContainer

from kdtune.clips.video.containers import empty_chunks, promised_bytes
from kdtune.clips.video.opening import Refused

#: Frames that may be missing without a decoding error: packed MPEG-4 has packets without a frame.
MISSING_FRAMES, MISSING_SHARE = 2, 0.01
#: Formats whose demuxer lists every packet, shown or not, before it reads one.
INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "avi")
#: Formats whose header states the length of the whole file. For other formats FFmpeg may guess it.
TIMED = ("matroska,webm", "flv", "asf")
MICROSECONDS = 1_000_000


def header_promise(container: InputContainer, stream: av.VideoStream, size: int) -> int:
    """Return how many frames the header of a file of `size` bytes promises, or an estimate from its seconds.

    Reads the packets only where the header states neither.
    """
    frames = (_indexed(container, stream) if stream.frames else 0) or stream.frames
    if not frames:
        rate = stream.average_rate or stream.guessed_rate or 0
        frames = round(_length_s(container, stream) * float(rate))
    if frames <= 0:
        frames = sum(is_shown(packet) for packet in container.demux(stream))
    return min(frames, size)  # a broken header may promise anything, but a frame needs at least a byte


def is_shown(packet: av.Packet) -> bool:
    """Return whether a player shows a frame for this packet."""
    if not packet.size or packet.is_discard:
        return False
    return packet.stream.name != "vp8" or bool(memoryview(packet)[0] & 0x10)  # RFC 6386, section 9.1: show_frame


class PromiseCheck:
    """Counts what reading and decoding a file finds, and compares it with what the file promises."""

    def __init__(self, path: Path, container: InputContainer, stream: av.VideoStream) -> None:
        self.path, self.container, self.stream = path, container, stream
        self.packets = self.frames = self.damaged = 0
        self._leading = 0  # packets that need not decode: the file lacks the pictures that they refer to
        self._key: av.Packet | None = None  # the first key picture
        self._leads, self._follows_key = True, False
        self.trouble = ""  # the first decoding error
        self.all_shown = True  # no packet is marked as not shown
        self._video, self._file = _Span(), _Span()

    def add(self, packet: av.Packet) -> None:
        """Count a packet of any stream."""
        self._file.add(packet)
        if packet.stream.index == self.stream.index:
            self._video.add(packet)
            self._count(packet)

    def _count(self, packet: av.Packet) -> None:
        if packet.size and packet.is_keyframe and self._key is None:
            self._key, self._leads = packet, False
            self._follows_key = packet.pts is not None
        elif self._follows_key and packet.size and self._key is not None:
            # Leading pictures follow the key picture directly, and are shown before it or have no time at all.
            early = packet.pts is None or (self._key.pts is not None and packet.pts < self._key.pts)
            self._follows_key = self._leads = early
        if not is_shown(packet):
            self.all_shown = self.all_shown and not packet.is_discard
        else:
            self.packets += 1
            self._leading += self._leads

    def check(self) -> None:
        """Raise Refused unless the file, read to its end, is whole and sound."""
        promised = self._promised()
        missing = promised - self.frames
        why = f" ({self.trouble})" if self.trouble else ""
        if missing > 0 and (self.trouble or missing > max(MISSING_FRAMES, MISSING_SHARE * promised)):
            raise Refused(f"promises {promised} frames, only {self.frames} decode{why}")
        if self.trouble or self.damaged:
            raise Refused("is damaged: " + (self.trouble or f"{self.damaged} of {self.frames} frames are broken"))
        if not self.frames:
            raise Refused("has no frames")
        if not self.stream.frames:
            self._check_length()
            self._check_bytes()

    def _promised(self) -> int:
        indexed = _indexed(self.container, self.stream)
        promised = max(self.packets, indexed or self.stream.frames)
        if self.container.format.name == "avi" and self.stream.frames > max(promised, self.frames):
            # A cut-off file has lost its index too; only the header still counts the original frames.
            promised = max(
                promised, self.stream.frames - empty_chunks(self.path, self.stream.index, self.stream.frames)
            )
        return promised - self._leading if self._key is not None else promised

    def _check_length(self) -> None:
        """Raise Refused where a header that counts no frames promises more seconds than the file holds."""
        promised_s, span = _stream_length_s(self.stream), self._video
        if self.container.format.name in TIMED and (self.container.format.name == "asf" or not promised_s):
            promised_s, span = _file_length_s(self.container), self._file  # the sound may be longer than the video
        if span.length_s < promised_s - max(0.5, MISSING_SHARE * promised_s):
            raise Refused(f"promises {promised_s:.1f} s, ends after {span.length_s:.1f} s")

    def _check_bytes(self) -> None:
        size, promised = self.path.stat().st_size, promised_bytes(self.path, self.container.format.name)
        if size < promised:
            raise Refused(f"promises {promised:,} bytes, only {size:,} are there")


class _Span:
    """The time that packets cover, in seconds."""

    def __init__(self) -> None:
        self.start_s, self.end_s = math.inf, -math.inf

    def add(self, packet: av.Packet) -> None:
        if packet.size and packet.pts is not None and packet.time_base is not None:
            self.start_s = min(self.start_s, float(packet.pts * packet.time_base))
            self.end_s = max(self.end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))

    @property
    def length_s(self) -> float:
        return max(0.0, self.end_s - self.start_s)


def _indexed(container: InputContainer, stream: av.VideoStream) -> int:
    """Return how many packets with a frame the demuxer lists; 0 for formats whose list is incomplete."""
    if container.format.name not in INDEXED:
        return 0
    return sum(entry.size > 0 and not entry.is_discard for entry in stream.index_entries)


def _length_s(container: InputContainer, stream: av.VideoStream) -> float:
    return _stream_length_s(stream) or _file_length_s(container)


def _stream_length_s(stream: av.VideoStream) -> float:
    """Return the stream's length in seconds as the header states it; 0 where it states none."""
    if stream.time_base is None:
        return 0.0
    if stream.duration is not None:
        return max(0.0, float(stream.duration * stream.time_base))
    hours, _, rest = stream.metadata.get("DURATION", "0:0:0").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        end_s = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return 0.0
    return _without_start(end_s, float((stream.start_time or 0) * stream.time_base))


def _file_length_s(container: InputContainer) -> float:
    if not container.duration:
        return 0.0
    return max(0.0, _without_start(container.duration / MICROSECONDS, (container.start_time or 0) / MICROSECONDS))


def _without_start(end_s: float, start_s: float) -> float:
    """Return the length of a stream that ends at `end_s`.

    Some writers state the length itself instead of the end; it is then less than a late start.
    """
    return end_s - start_s if end_s > start_s > 0 else end_s
