"""Data sets whose videos are folders of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kdtune.clips.layout.names import Names, counted, kind_of, problem, some
from kdtune.clips.layout.resolve import without_suffix
from kdtune.clips.layout.rows import Reading
from kdtune.clips.layout.walk import Found, scan_below
from kdtune.errors import Problem


def note_frames(root: Path, found: Sequence[Found], reading: Reading) -> list[Problem]:
    """Add the folders of frames to `reading`, and note other pictures. Return the problem of a mixture with files."""
    frames = dict(sorted(pair for part in found for pair in part.frames.items()))
    if not frames:
        return []
    files = [path.relative_to(root) for part in found for path in part.videos if path not in part.frames]
    if files:
        folders = some(path.relative_to(root) for path in frames)
        what = f"holds {counted(len(files), 'video file')} ({some(files)}) and "
        what += f"{counted(len(frames), 'folder')} of numbered pictures ({folders})"
        return [problem(root, what, "video files or folders of frames, not both")]
    reading.frames |= {path.relative_to(root).as_posix(): number for path, number in frames.items()}
    if pictured := [path.relative_to(root) for part in found for path in part.pictured]:
        what = f"pictures that are no numbered frames of one video are left out, in {some(pictured)}"
        reading.notes.append(what)
    return []


def frames_for_files(root: Path, lists: Path, names: Names, reading: Reading) -> list[Problem]:
    """Take the listed files for folders of frames of the same names, if the first one is such a folder.

    Return the problem of a mixture with files.
    """
    first = reading.rows[0].video if reading.rows else ""
    try:
        if kind_of(names.path(first)) == "file" or kind_of(names.path(without_suffix(first))) != "folder":
            return []
        problems = note_frames(root, [scan_below(root, lists)], reading)
    except OSError:
        return []  # looking for the listed files reports it
    if reading.frames:
        reading.rows = [replace(row, video=without_suffix(row.video)) for row in reading.rows]
    return problems
