"""Turn frames upright as FFmpeg's player does: by the whole display matrix, mirrors included.

A file may hold a 3×3 matrix that says how to show its frames: phones write a rotation, front cameras and editors also a
mirror. The matrix maps stored to shown coordinates, (x, y) → (a·x + c·y, b·x + d·y), where
a, b, c, d = m[0], m[1], m[3], m[4] in 16.16 fixed point, y pointing down. Like FFmpeg (fftools/ffmpeg_filter.c,
`configure_input_video_filter`), this module uses the matrix's angle and signs and ignores scale and translation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import SideData, Type
from av.video.reformatter import VideoReformatter


@dataclass(frozen=True)
class Turn:
    """The turn from stored pixels to shown ones: a transposition, then mirrors, or any other angle."""

    transpose: bool = False
    mirror: bool = False  # left to right
    flip: bool = False  # top to bottom
    angle: int = 0  # degrees clockwise, for angles that are no quarter turn; the corners become black

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return the (h, w, 3) array transposed and mirrored, as a view. Does not apply `angle`."""
        if self.transpose:
            pixels = pixels.transpose(1, 0, 2)
        return pixels[:: -1 if self.flip else 1, :: -1 if self.mirror else 1]


UPRIGHT = Turn()


def turn_of(matrix: tuple[int, ...] | None) -> Turn:
    """Return the turn that FFmpeg makes for a display matrix of nine numbers; UPRIGHT for None."""
    if matrix is None:
        return UPRIGHT
    a, b, c, d = (float(matrix[i]) for i in (0, 1, 3, 4))
    first, second = math.hypot(a, c), math.hypot(b, d)
    if first == 0 or second == 0:  # FFmpeg ignores a degenerate matrix
        return UPRIGHT
    # av_display_rotation_get() gives the negative of this angle, and get_rotation() of fftools negates it again.
    theta = _rounded(math.degrees(math.atan2(b / second, a / first))) % 360
    if theta == 0:
        return Turn(flip=d < 0)
    if theta == 90:
        return Turn(transpose=True, mirror=c <= 0)
    if theta == 180:
        return Turn(mirror=a < 0, flip=d < 0)
    if theta == 270:
        return Turn(transpose=True, mirror=c < 0, flip=True)
    return Turn(angle=theta) if theta > 1 else UPRIGHT


def display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    """Return the nine numbers of the frame's display matrix; None where it has none."""
    while True:
        try:
            found = [data for data in cast(Iterable[SideData], frame.side_data) if data.type == Type.DISPLAYMATRIX]
            return tuple(np.frombuffer(bytes(found[0]), np.int32)[:9].tolist()) if found else None
        except ValueError as error:  # PyAV cannot list side data of a type unknown to it, as stereo videos have
            unknown = str(error).split(" ")[0]
            if not unknown.isdigit():
                raise
            frame = _Filters(frame, [("sidedata", f"mode=delete:type={unknown}")]).apply(frame)


class Pictures:
    """Converts a video's frames to upright RGB pictures. Use one object per video: set-up takes a millisecond."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._filters: dict[tuple[object, ...], _Filters] = {}

    def picture(self, frame: av.VideoFrame) -> np.ndarray:
        """Return the frame as it is shown, (height, width, 3) uint8 RGB."""
        turn = turn_of(display_matrix(frame))
        if turn.angle or frame.interlaced_frame:
            # PyAV's reformatter converts the two fields separately, FFmpeg's player the whole picture.
            key = (frame.width, frame.height, frame.format.name, turn.angle)
            rotate = [("rotate", f"{turn.angle}*PI/180")] if turn.angle else []
            if key not in self._filters:
                self._filters = {key: _Filters(frame, [*rotate, ("format", "rgb24")])}
            rgb = self._filters[key].apply(frame)
        else:
            rgb = self._reformatter.reformat(frame, format="rgb24")
        return np.ascontiguousarray(turn(rgb.to_ndarray()))


class _Filters:
    """A chain of FFmpeg filters, given as (name, arguments), for frames of one size and format."""

    def __init__(self, frame: av.VideoFrame, chain: list[tuple[str, str]]) -> None:
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
        )
        nodes = [self._graph.add(name, arguments) for name, arguments in chain]
        self._graph.link_nodes(source, *nodes, self._graph.add("buffersink")).configure()

    def apply(self, frame: av.VideoFrame) -> av.VideoFrame:
        self._graph.push(frame)
        made = self._graph.pull()
        assert isinstance(made, av.VideoFrame)
        return made


def _rounded(degrees: float) -> int:
    """Round half away from zero, as C's round() does."""
    return int(math.copysign(math.floor(abs(degrees) + 0.5), degrees))
