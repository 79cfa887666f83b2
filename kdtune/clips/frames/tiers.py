"""The two tiers of a ClipStore: frames are stored raw, or each as a JPEG.

raw    frames.u8, uint8 RGB as decoded. A clip is a view of the mapped file: nothing is copied or computed.
jpeg   frames.jpeg, the JPEGs one after another, and frames.npy, int64 (N + 1,), where each begins. A fifth of the bytes
       at quality 95; a frame of 128×171 takes about 0.2 ms to decode each time it is read.

A JPEG's pixels differ from the decoded ones, so trials on the two tiers have different keys: the manifest of a jpeg
store, which keys hash, names tier, quality and subsampling. A jpeg store is read with the version of simplejpeg that
wrote it, whose accurate integer DCT gives the same pixels on every processor. Colours are not subsampled (4:4:4): that
costs about 16 % more bytes than 4:2:0, but spares small frames a second halving of their colours and the reader an
interpolation.

simplejpeg is imported only where a jpeg store is used.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from kdtune.config.key import digest

SUBSAMPLING = "444"
#: File of the JPEGs' offsets.
OFFSETS = "frames.npy"


class Frame(NamedTuple):
    """A frame to be stored. Number 0 starts the video, or starts it again."""

    number: int
    pixels: np.ndarray  # (h, w, 3) uint8 RGB
    decoder: str


@dataclass(frozen=True)
class Tier:
    """A way to store frames: `raw`, or `jpeg` with a quality from 1 to 100."""

    name: str = "raw"
    quality: int | None = None

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> Tier:
        """Return the tier that a store.json names."""
        return cls(record["tier"], record.get("quality"))

    def __str__(self) -> str:
        return "raw" if self.name == "raw" else f"JPEG (quality {self.quality})"

    @property
    def file(self) -> str:
        return "frames.u8" if self.name == "raw" else "frames.jpeg"

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all files that a finished store needs."""
        offsets = () if self.name == "raw" else (OFFSETS,)
        return self.file, *offsets, "index.parquet", "refused.csv", "store.json"

    @property
    def record(self) -> dict[str, str | int | None]:
        if self.name == "raw":
            return {"tier": self.name}
        return {"tier": self.name, "quality": self.quality, "subsampling": SUBSAMPLING}

    def manifest(self, videos: str) -> str:
        """Return the digest of the stored frames that trial keys hash, given the digest of the video files."""
        return videos if self.name == "raw" else digest({"manifest": videos, **self.record})

    @property
    def codec(self) -> dict[str, str]:
        """Package and version of the codec; empty for raw. Raises PackageNotFoundError where it is not installed."""
        return {} if self.name == "raw" else {"simplejpeg": importlib.metadata.version("simplejpeg")}

    def encode(self, pixels: np.ndarray) -> memoryview | bytes:
        """Return the bytes to store for one frame (h, w, 3) uint8 RGB."""
        if self.name == "raw":
            return pixels.data
        import simplejpeg

        return simplejpeg.encode_jpeg(pixels, quality=self.quality, colorsubsampling=SUBSAMPLING, fastdct=False)


def missing_codec() -> str | None:
    """Return why the jpeg tier is unavailable here; None where it is available."""
    try:
        import simplejpeg  # noqa: F401
    except Exception:  # absent, or present with a library that does not load
        return "the package simplejpeg is not installed"
    return None


class Reader(Protocol):
    """Reads frames by their number in the store."""

    def clip(self, first: int, count: int) -> np.ndarray:
        """Return `count` frames from number `first` on, (count, h, w, 3) uint8 RGB."""

    def byte_span(self, first: int, count: int) -> tuple[int, int]:
        """Return the (start, end) of these frames' bytes in the store's big file."""


@dataclass(frozen=True)
class RawReader:
    folder: Path
    frames: int
    size: tuple[int, int]

    @cached_property
    def _mapped(self) -> np.ndarray:
        shape = (self.frames, *self.size, 3)
        return np.memmap(self.folder / Tier("raw").file, dtype=np.uint8, mode="r", shape=shape).view(np.ndarray)

    def clip(self, first: int, count: int) -> np.ndarray:
        return self._mapped[first : first + count]

    def byte_span(self, first: int, count: int) -> tuple[int, int]:
        frame = 3 * self.size[0] * self.size[1]
        return first * frame, (first + count) * frame


@dataclass(frozen=True)
class JpegReader:
    folder: Path
    size: tuple[int, int]

    @cached_property
    def _mapped(self) -> np.ndarray:
        return np.memmap(self.folder / Tier("jpeg").file, dtype=np.uint8, mode="r").view(np.ndarray)

    @cached_property
    def _offsets(self) -> np.ndarray:
        return np.asarray(np.load(self.folder / OFFSETS, mmap_mode="r"))

    def clip(self, first: int, count: int) -> np.ndarray:
        import simplejpeg

        out = np.empty((count, *self.size, 3), np.uint8)
        ends = self._offsets[first : first + count + 1].tolist()
        for t in range(count):
            # Use the accurate DCT; raise an error rather than guess where the bytes are no sound JPEG.
            jpeg = self._mapped[ends[t] : ends[t + 1]]
            simplejpeg.decode_jpeg(jpeg, "RGB", fastdct=False, fastupsample=False, buffer=out[t], strict=True)
        return out

    def byte_span(self, first: int, count: int) -> tuple[int, int]:
        return int(self._offsets[first]), int(self._offsets[first + count])
