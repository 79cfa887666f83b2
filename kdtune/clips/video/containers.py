"""Read from a container's bytes what FFmpeg does not pass on: the size of the file, and the empty chunks of an AVI."""

from __future__ import annotations

import os
import struct
from pathlib import Path

#: Bytes at the beginning of a file that are searched for its size.
HEADER = 2**16
#: Names of an AVI's frame chunks after the stream number: uncompressed, compressed.
FRAME_CHUNKS = (b"db", b"dc")
#: The GUID of an ASF's File Properties Object.
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
#: The identifiers of Matroska's first two elements.
EBML, SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")


def promised_bytes(path: Path, demuxer: str) -> int:
    """Return the file size in bytes that the header states; 0 where it states none.

    Args:
        path: the video.
        demuxer: FFmpeg's name for its format.
    """
    with path.open("rb") as file:
        header = file.read(HEADER)
    if demuxer == "asf":
        return _asf_bytes(header)
    return _matroska_bytes(header) if demuxer == "matroska,webm" else 0


def empty_chunks(path: Path, stream: int, most: int) -> int:
    """Return the number of empty chunks in an AVI's stream, at most `most`. An empty chunk repeats the last picture.

    Walks all chunks of the file, including OpenDML's further parts, as far as the file goes.
    """
    mine, empty = b"%02d" % stream, 0
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8 and empty < most:
            name, length = struct.unpack("<4sI", head)
            if name in (b"RIFF", b"LIST"):  # their content follows
                file.seek(4, os.SEEK_CUR)
                continue
            empty += length == 0 and name[:2] == mine and name[2:] in FRAME_CHUNKS
            file.seek(length + length % 2, os.SEEK_CUR)
    return empty


def _asf_bytes(header: bytes) -> int:
    """Return the size in the File Properties Object of an ASF (WMV); 0 for a broadcast (ASF specification, 3.2)."""
    at = header.find(ASF_PROPERTIES)
    if at < 0 or len(header) < at + 92:
        return 0
    (size,), (flags,) = struct.unpack_from("<Q", header, at + 40), struct.unpack_from("<I", header, at + 88)
    return 0 if flags & 1 else size


def _matroska_bytes(header: bytes) -> int:
    """Return the end of a Matroska (WebM) file's only segment; 0 for a live stream (RFC 8794, RFC 9559)."""
    if header[:4] != EBML:
        return 0
    size, at = _vint(header, 4)
    at += size or 0
    if size is None or header[at : at + 4] != SEGMENT:
        return 0
    size, at = _vint(header, at + 4)
    return 0 if size is None else at + size


def _vint(data: bytes, at: int) -> tuple[int | None, int]:
    """Return the EBML number of variable length at `at` (None where it is unknown), and where it ends."""
    if at >= len(data) or not data[at]:
        return None, at
    length = 9 - data[at].bit_length()
    number = int.from_bytes(data[at : at + length], "big") & (1 << 7 * length) - 1
    return None if number == (1 << 7 * length) - 1 else number, at + length
