"""What the bytes of a container say that FFmpeg does not pass on: the size of the file, and the gaps of an AVI."""

from __future__ import annotations

import os
import struct
from pathlib import Path

#: How many bytes at the beginning of a file are looked through for its size.
HEADER = 2**16
#: What an AVI's chunks with a frame are called, after the number of the stream: uncompressed, compressed.
FRAME_CHUNKS = (b"db", b"dc")
#: The GUID of an ASF's File Properties Object.
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
#: The identifiers of Matroska's first two elements.
EBML, SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")


def promised_bytes(path: Path, demuxer: str) -> int:
    """Return how many bytes the file says that it has, 0 where it does not say.

    Args:
        path: the video.
        demuxer: FFmpeg's name of its format.
    """
    with path.open("rb") as file:
        header = file.read(HEADER)
    if demuxer == "asf":
        return _asf_bytes(header)
    return _matroska_bytes(header) if demuxer == "matroska,webm" else 0


def empty_chunks(path: Path, stream: int, most: int) -> int:
    """Return how many chunks of an AVI's stream hold nothing, at most `most`: "show the last picture again".

    Walks the file's chunks, those of OpenDML's further parts too, as far as the file goes.
    """
    mine, empty = b"%02d" % stream, 0
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8 and empty < most:
            name, length = struct.unpack("<4sI", head)
            if name in (b"RIFF", b"LIST"):  # what lies inside follows
                file.seek(4, os.SEEK_CUR)
                continue
            empty += length == 0 and name[:2] == mine and name[2:] in FRAME_CHUNKS
            file.seek(length + length % 2, os.SEEK_CUR)
    return empty


def _asf_bytes(header: bytes) -> int:
    """ASF (WMV): the File Properties Object has the size, except in a broadcast (ASF specification, 3.2)."""
    at = header.find(ASF_PROPERTIES)
    if at < 0 or len(header) < at + 92:
        return 0
    (size,), (flags,) = struct.unpack_from("<Q", header, at + 40), struct.unpack_from("<I", header, at + 88)
    return 0 if flags & 1 else size


def _matroska_bytes(header: bytes) -> int:
    """Matroska (WebM): all lies in one segment that has a size, except in a live stream (RFC 8794, RFC 9559)."""
    if header[:4] != EBML:
        return 0
    size, at = _vint(header, 4)
    at += size or 0
    if size is None or header[at : at + 4] != SEGMENT:
        return 0
    size, at = _vint(header, at + 4)
    return 0 if size is None else at + size


def _vint(data: bytes, at: int) -> tuple[int | None, int]:
    """Return an EBML number of variable length (None for an unknown one), and where it ends."""
    if at >= len(data) or not data[at]:
        return None, at
    length = 9 - data[at].bit_length()
    number = int.from_bytes(data[at : at + length], "big") & (1 << 7 * length) - 1
    return None if number == (1 << 7 * length) - 1 else number, at + length
