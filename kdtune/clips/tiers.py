"""How a ClipStore keeps its frames: raw, or each as a JPEG.

raw    frames.u8, uint8 RGB as decoded. A clip is a view of the mapped file: nothing is copied, nothing is computed.
jpeg   frames.jpeg, the JPEGs one after another, and frames.npy, int64 (N + 1,), where each begins. A fifth of the bytes
       at quality 95; a frame of 128×171 takes some 0.2 ms to decode, each time that it is read.

A JPEG's pixels are not the decoded ones, so the two tiers give trials other keys: the manifest of a jpeg store, which
keys hash, names tier, quality and subsampling. A jpeg store is read with the version of simplejpeg that wrote it, whose
accurate integer DCT gives the same pixels on every processor. Colours are not subsampled (4:4:4): that costs some
16 % more bytes than 4:2:0, and spares small frames a second halving of their colours and the reader an interpolation.

simplejpeg is imported where a jpeg store is touched and nowhere else.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from kdtune.config.key import digest

SUBSAMPLING = "444"
#: Where each JPEG begins.
OFFSETS = "frames.npy"


class Frame(NamedTuple):
    """A frame on its way into a store; number 0 begins the video (anew)."""

    number: int
    pixels: np.ndarray  # (h, w, 3) uint8 RGB
    decoder: str


@dataclass(frozen=True)
class Tier:
    """`raw`, or `jpeg` of a quality from 1 to 100."""

    name: str = "raw"
    quality: int | None = None

    @classmethod
    def recorded(cls, record: dict[str, Any]) -> Tier:
        """The tier that a store.json names; those of before there were tiers are raw."""
        return cls(record.get("tier", "raw"), record.get("quality"))

    def __str__(self) -> str:
        return "raw" if self.name == "raw" else f"JPEG (quality {self.quality})"

    @property
    def file(self) -> str:
        return "frames.u8" if self.name == "raw" else "frames.jpeg"

    @property
    def files(self) -> tuple[str, ...]:
        """All that a finished store needs."""
        offsets = () if self.name == "raw" else (OFFSETS,)
        return self.file, *offsets, "index.parquet", "refused.csv", "store.json"

    @property
    def record(self) -> dict[str, Any]:
        if self.name == "raw":
            return {"tier": self.name}
        return {"tier": self.name, "quality": self.quality, "subsampling": SUBSAMPLING}

    def manifest(self, videos: str) -> str:
        """What trial keys hash as their data, from the digest of the video files: the frames that a trial sees."""
        return videos if self.name == "raw" else digest({"manifest": videos, **self.record})

    @property
    def codec(self) -> dict[str, str]:
        """The version of the codec beside those of the decoders. Raises PackageNotFoundError where it is absent."""
        return {} if self.name == "raw" else {"simplejpeg": importlib.metadata.version("simplejpeg")}

    def encode(self, pixels: np.ndarray) -> memoryview | bytes:
        """The bytes that are stored of one frame (h, w, 3) uint8."""
        if self.name == "raw":
            return pixels.data
        import simplejpeg

        return simplejpeg.encode_jpeg(pixels, quality=self.quality, colorsubsampling=SUBSAMPLING, fastdct=False)


def missing_codec() -> str | None:
    """Why there can be no jpeg tier here, or None."""
    try:
        import simplejpeg  # noqa: F401
    except Exception:  # absent, or present with a library that does not load
        return "the package simplejpeg is not installed"
    return None


class Reader(Protocol):
    """Frames by their place in the store."""

    def clip(self, first: int, count: int) -> np.ndarray:
        """(count, h, w, 3) uint8 RGB: the frames from place `first` on."""

    def byte_span(self, first: int, count: int) -> tuple[int, int]:
        """The bytes of these frames in the store's big file: from, to."""


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
            # The accurate DCT, and an error rather than a guess where the bytes are no sound JPEG.
            jpeg = self._mapped[ends[t] : ends[t + 1]]
            simplejpeg.decode_jpeg(jpeg, "RGB", fastdct=False, fastupsample=False, buffer=out[t], strict=True)
        return out

    def byte_span(self, first: int, count: int) -> tuple[int, int]:
        return int(self._offsets[first]), int(self._offsets[first + count])
