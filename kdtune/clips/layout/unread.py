"""Report what is not read: unknown lists, and videos that no list names."""

from __future__ import annotations

from pathlib import Path

from kdtune.clips.layout.listed import WANTED
from kdtune.clips.layout.names import Names, counted, missing_videos, problem, some
from kdtune.clips.layout.rows import Reading
from kdtune.clips.layout.walk import entries, folders_above, is_folder, same_folder, scan
from kdtune.errors import Problem

#: Endings of files that may be lists of videos.
LISTS = (".csv", ".tsv", ".txt", ".json", ".jsonl")
KNOWN = f"{WANTED}; or classInd.txt, trainlist01.txt and testlist01.txt"


def unknown_lists(lists: Path, listed: set[str], *, given: bool) -> list[Problem]:
    """Return a problem if the folder's lists would be ignored: they have another data set's format, or an unknown one.

    `given` says whether the user named the folder of lists.
    """
    hmdb51 = sorted(name for name in listed if name.endswith(tuple(f"_test_split{n}.txt" for n in (1, 2, 3))))
    if hmdb51:
        return [problem(lists, f"holds lists in HMDB51's format: {some(hmdb51)}", "data.dataset: hmdb51")]
    if not given or "groups.csv" in listed:
        return []
    others = like_lists(listed)
    has = f"it has {some(others)}" if others else "it has no lists" if listed else "it is empty or missing"
    return [problem("data.lists", f"{lists} holds none of the lists that are read; {has}", KNOWN)]


def like_lists(listed: set[str]) -> list[str]:
    """Return the names that look like lists of videos but are not read."""
    about = ("readme", "license", "licence", "groups.csv", "requirements")
    return sorted(name for name in listed if name.lower().endswith(LISTS) and not name.lower().startswith(about))


def note_unlisted(root: Path, lists: Path, names: Names, reading: Reading) -> None:
    """Note the videos in class folders that no list names, and count the other files there."""
    unread: list[Problem] = []
    kind = "folder" if reading.frames else "file"
    _, paths, _ = missing_videos(names, [row.video for row in reading.rows], kind)
    listed, unlisted = set(paths.values()), []
    try:
        outside = folders_above(root)
    except OSError:
        return  # the listed videos cannot be read either, which is reported
    for entry in entries(root, unread):
        path = root / entry.name
        if is_folder(entry, unread) and not same_folder(path, lists):
            found = scan(path, outside)
            unlisted += [video for video in found.videos if video not in listed]
            reading.others += found.others
            unread += found.problems
    if unlisted:
        what = "1 video is" if len(unlisted) == 1 else f"{len(unlisted):,} videos are"
        reading.notes.append(f"{what} in no list and left out: {some(path.relative_to(root) for path in unlisted)}")
    if unread:
        reading.notes.append(f"{counted(len(unread), 'path')} could not be searched for videos: {unread[0]}")
