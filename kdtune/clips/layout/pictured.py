"""Data sets whose videos are folders of frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdtune.clips.layout.names import counted, problem, some
from kdtune.clips.layout.rows import Reading
from kdtune.clips.layout.walk import Found
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
