"""Decode a folder of frames, one picture a frame, or refuse it with the pictures that are broken or missing.

JPEGs are decoded by simplejpeg with the accurate integer DCT, which gives the same pixels on every processor, and
strictly: libjpeg only warns of damaged data, and Pillow shows garbage without a word. PNGs have checksums, which Pillow
checks. The frames of a folder must be one whole sequence of one size (sequence.py).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from kdtune.clips.frames.tiers import Frame
from kdtune.clips.video.opening import MAX_PIXELS, Refused, plain
from kdtune.clips.video.sequence import SHOWN, frames_of

#: Pillow's modes with 8 bits a channel that convert to RGB without loss; an alpha channel is dropped.
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
#: EXIF's tag of a picture's orientation.
ORIENTATION = 0x0112


def decode_pictures(folder: Path) -> Iterator[Frame]:
    """Yield a folder's frames in order, (h, w, 3) uint8 RGB, upright. Raises Refused, possibly after some frames."""
    names = _sound_names(folder)
    size = None
    for number, name in enumerate(names):
        try:
            pixels, decoder = _picture(folder / name)
        except Refused as refused:
            raise _with_other_broken(folder, names[number:], refused) from None
        if size is not None and pixels.shape != size:
            what = f"{name} has {pixels.shape[1]}×{pixels.shape[0]} pixels, the frames before it {size[1]}×{size[0]}"
            raise Refused(f"has frames of two sizes: {what}")
        size = pixels.shape
        yield Frame(number, pixels, decoder)


def picture_header(folder: Path) -> tuple[int, int, int]:
    """Return the number of frames in a folder, and height and width of the first, in pixels.

    Raises Refused where they are not one whole sequence, and OSError where the first cannot be opened.
    """
    names = _sound_names(folder)
    with Image.open(folder / names[0]) as picture:
        return len(names), picture.height, picture.width


def picture_decoders() -> dict[str, str]:
    """Return the decoders of pictures with their versions."""
    return {name: importlib.metadata.version(name) for name in ("simplejpeg", "pillow")}


def _sound_names(folder: Path) -> tuple[str, ...]:
    try:
        sequence = frames_of(folder)
    except OSError as error:
        raise Refused(f"cannot be read: {error.strerror or plain(error)}") from None
    if sequence.problem:
        raise Refused(sequence.problem)
    return sequence.names


def _with_other_broken(folder: Path, names: tuple[str, ...], first: Refused) -> Refused:
    """Return the refusal of a folder whose first broken frame is `names[0]`, with the names of the others."""
    others = []
    for name in names[1:]:
        try:
            _picture(folder / name)
        except Refused:
            others.append(name)
    shown = ", ".join(others[: SHOWN - 1]) + (", …" if len(others) >= SHOWN else "")
    more = f"; {len(others) + 1} frames are broken, also {shown}" if others else ""
    return Refused(f"has a broken frame: {names[0]} {first}{more}")


def _picture(path: Path) -> tuple[np.ndarray, str]:
    """Return a picture, (h, w, 3) uint8 RGB and upright, and its decoder. Raises Refused."""
    try:
        content = path.read_bytes()
        if not content:
            raise Refused("is empty")
        with Image.open(BytesIO(content), formats=("JPEG", "PNG")) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                size = f"{picture.width}×{picture.height}"
                raise Refused(f"has {size} pixels; at most {MAX_PIXELS:,} are read")
            if picture.mode not in MODES:
                raise Refused(f"has the colours {picture.mode}; 8-bit grey and RGB are read")
            turned = picture.getexif().get(ORIENTATION, 1) != 1
            if picture.format == "PNG":
                upright = ImageOps.exif_transpose(picture) if turned else picture
                return np.asarray(upright.convert("RGB")), "pillow"
            orientation = picture.getexif() if turned else None
        return _jpeg(content, orientation), "simplejpeg"
    except Refused:
        raise
    except UnidentifiedImageError:
        raise Refused("is no JPEG or PNG") from None
    except OSError as error:
        raise Refused(f"cannot be read: {error.strerror}" if error.errno else plain(error)) from None
    except Exception as error:  # whatever a decoding library raises on broken pictures
        raise Refused(plain(error)) from None


def _jpeg(content: bytes, orientation: Image.Exif | None) -> np.ndarray:
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(content, "RGB", fastdct=False, fastupsample=False, strict=True)
    if orientation is None:
        return pixels
    picture = Image.fromarray(pixels)
    picture.getexif()[ORIENTATION] = orientation[ORIENTATION]
    return np.asarray(ImageOps.exif_transpose(picture))
