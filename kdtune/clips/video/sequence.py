"""Find the numbered frames in a folder of pictures: one video, as FFmpeg and frame extractors write it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

#: Suffixes of pictures that are read as frames.
PICTURES = frozenset({".jpg", ".jpeg", ".png"})
#: A frame's name: "img_00012.jpg", "12.png", "run (12).jpeg".
FRAME = re.compile(r"(?P<prefix>.*?)(?P<number>[0-9]{1,9})\)?(?P<suffix>\.[a-z]+)", re.IGNORECASE | re.DOTALL)
#: Optical flow that mmaction2's tools write beside the frames.
FLOW = re.compile(r"flow_[xy]_?", re.IGNORECASE)
#: Maximum number of gaps and names that a message lists.
SHOWN = 5


@dataclass(frozen=True)
class Sequence:
    """The frames of one folder, in order."""

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    strangers: tuple[str, ...] = ()
    """Pictures in the folder that do not belong to the sequence."""

    @property
    def problem(self) -> str:
        """Why the frames cannot be trusted to be one whole video; empty where they can."""
        if not self.names:
            return f"has no numbered frames, but {_some(self.strangers)}" if self.strangers else "is a folder"
        if self.strangers:
            return f"has pictures beside the frames {self._ends}: {_some(self.strangers)}"
        pairs = list(pairwise(self.numbers))
        if twice := [name for name, (before, after) in zip(self.names[1:], pairs, strict=True) if after == before]:
            return f"has two frames of one number: {_some(twice)}"
        gaps = [
            f"{before + 1}" if after == before + 2 else f"{before + 1} to {after - 1}"
            for before, after in pairs
            if after > before + 1
        ]
        return f"misses frames between {self._ends}: {_some(gaps)}" if gaps else ""

    @property
    def _ends(self) -> str:
        return f"{self.names[0]} and {self.names[-1]}"


def is_picture(name: str) -> bool:
    """Return whether a file of this name may be a frame. Names that begin with a dot are junk."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in PICTURES


def sequence_of(names: Iterable[str]) -> Sequence:
    """Return the frames among a folder's `names`, and its other pictures.

    Frames share what stands before and after the number; the largest such set is the video.
    """
    sets: dict[tuple[str, str], list[tuple[int, str]]] = {}
    strangers = []
    for name in names:
        if not is_picture(name):
            continue
        found = FRAME.fullmatch(name)
        if found is None:
            strangers.append(name)
        elif not FLOW.fullmatch(found["prefix"]):
            sets.setdefault((found["prefix"], found["suffix"].lower()), []).append((int(found["number"]), name))
    if not sets:
        return Sequence((), (), tuple(sorted(strangers)))
    video = max(sets, key=lambda key: (len(sets[key]), key))
    frames = sorted(sets.pop(video))
    strangers += [name for others in sets.values() for _, name in others]
    return Sequence(tuple(name for _, name in frames), tuple(number for number, _ in frames), tuple(sorted(strangers)))


def frames_of(folder: Path) -> Sequence:
    """Return the frames of a folder. Raises OSError where it cannot be read."""
    with os.scandir(folder) as found:
        return sequence_of(entry.name for entry in found if is_picture(entry.name) and entry.is_file())


def _some(names: Iterable[str]) -> str:
    texts = list(names)
    return ", ".join(texts[:SHOWN]) + (f", … ({len(texts)} in all)" if len(texts) > SHOWN else "")
