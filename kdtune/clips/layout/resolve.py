"""Find the video that a list means: lists leave out suffixes, split folders and class folders."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from kdtune.clips.layout.names import Names, counted, fold, some
from kdtune.clips.layout.parts import part_of
from kdtune.clips.layout.walk import SUFFIXES, Found


class VideoIndex:
    """All videos below a root: files, and folders of frames."""

    def __init__(self, root: Path, found: Found, names: Names) -> None:
        self.names = names
        self.videos = [path.relative_to(root).as_posix() for path in found.videos]
        self._exact = set(self.videos)
        self._ending: dict[str, list[str]] = {}
        frames = self._frames = {path.relative_to(root).as_posix() for path in found.frames}
        for video in self.videos:
            last = PurePosixPath(video).name
            stems = {last} if video in frames else {last, PurePosixPath(last).stem}
            for name in stems:
                self._ending.setdefault(fold(name), []).append(video)

    def find(self, text: str, label: str, part: str) -> str:
        """Return the video that a list's line means; the path as written where there is none.

        A path may begin below the root, or only in one of its folders, and may lack the suffix. Of several fitting
        videos, the one below folders named like the class and the split counts. Raises ValueError with the reason where
        several remain, or the path cannot be below the root.
        """
        try:
            video = self.names.spelled(text)
        except ValueError:
            # Some lists begin paths below the root with a slash: "/train/run/1.avi".
            below = self._fitting(text.lstrip("/")) if text.startswith("/") else []
            if len(below) != 1:
                raise
            return below[0]
        if not video:
            raise ValueError("is no path of a video")
        if video in self._exact:
            return video
        fitting = self._fitting(video)
        if not fitting and self._frames:  # the list names the files from which the frames were taken
            fitting = self._fitting(without_suffix(video))
        for narrowed in (_below(fitting, [label, label.replace(" ", "_")]), _in_part(fitting, part)):
            if len(fitting) > 1 and narrowed:
                fitting = [name for name in fitting if name in narrowed]
        if len(fitting) > 1:
            raise ValueError(f"may be any of {counted(len(fitting), 'video')}: {some(fitting)}")
        return fitting[0] if fitting else video

    def _fitting(self, video: str) -> list[str]:
        """Return the videos whose paths are `video` or end with it, with or without a suffix."""
        if not video:
            return []
        wanted = fold(video)
        candidates = self._ending.get(wanted.rpartition("/")[2], [])
        return [name for name in candidates if _ends_with(fold(name), wanted)]


def without_suffix(video: str) -> str:
    """Return a path without a video's suffix; a folder of frames has none."""
    path = PurePosixPath(video)
    return path.with_suffix("").as_posix() if path.suffix.lower() in SUFFIXES else video


def _ends_with(path: str, wanted: str) -> bool:
    return any(f"/{form}".endswith(f"/{wanted}") for form in (path, PurePosixPath(path).with_suffix("").as_posix()))


def _below(videos: list[str], folders: list[str]) -> set[str]:
    """Return the videos that are below a folder of one of these names."""
    wanted = {fold(name) for name in folders if name}
    return {video for video in videos if wanted & {fold(name) for name in video.split("/")[:-1]}}


def _in_part(videos: list[str], part: str) -> set[str]:
    return {video for video in videos if part and part in {part_of(name) for name in video.split("/")[:-1]}}
