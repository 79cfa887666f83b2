"""Download a data set: check, ask, download, compare, unpack, arrange, and check what has come.

FOLDER/
    CLASS/VIDEO.avi      the videos
    lists/               the official lists
    download.json        address, size and SHA-256 of each archive, with which a later download is compared
    .download/           archives and their parts, until everything is in its place
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from kdtune.clips.catalog import load_catalog
from kdtune.clips.layout.names import some
from kdtune.clips.machine import amount, free_bytes
from kdtune.config.sections import DataConfig
from kdtune.download.official import Archive, Official
from kdtune.download.transfer import WAITS_S, download, sha256
from kdtune.download.unpack import Unpacker, find_unpacker, unzip
from kdtune.errors import DataError, Problem
from kdtune.parse import JsonObject
from kdtune.store.files import read_json, write_json

Say = Callable[[str], object]
Ask = Callable[[str], bool]
RECORD, WORK, LISTS = "download.json", ".download", "lists"
#: Free space, in bytes, that is left besides.
SPARE = 100_000_000


@dataclass
class Fetch:
    """The download of one data set into a folder. Running it again resumes it."""

    official: Official
    folder: Path
    say: Say
    waits_s: tuple[float, ...] = WAITS_S

    @property
    def data(self) -> DataConfig:
        """The data set as a sweep file names it."""
        fields = {"dataset": self.official.dataset, "root": str(self.folder), "lists": str(self.folder / LISTS)}
        return DataConfig.model_validate(fields)

    def run(self, agree: Ask) -> bool:
        """Download what is missing, and check all of it. Return whether the user agreed to the licence and the size.

        Raises DataError where a program, the space or the file at its place is not as it must be.
        """
        if not self._problems():
            self.say(f"{self.folder} holds all {self.official.count:,} videos already")
            return True
        unpacker = find_unpacker()
        self._check_space()
        if not agree(self._terms()):
            return False
        work = self.folder / WORK
        work.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(work / "lock", timeout=0):
                self._bring(work, unpacker)
        except Timeout:
            raise DataError([Problem(str(self.folder), "another download into this folder is running")]) from None
        shutil.rmtree(work)
        return True

    def _bring(self, work: Path, unpacker: Unpacker) -> None:
        for archive in (self.official.lists, self.official.videos):
            self._archive(archive, work / archive.name)
        unpacked = work / "unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)  # of an interrupted run
        for archive in (self.official.lists, self.official.videos):
            self.say(f"unpacking {archive.name}")
            if archive.name.endswith(".zip"):
                unzip(work / archive.name, unpacked)
            else:
                unpacker.unpack(work / archive.name, unpacked)
        for inner in sorted(unpacked.rglob("*.rar")):  # HMDB51 has an archive for each class
            unpacker.unpack(inner, inner.parent)
            inner.unlink()
        self._arrange(unpacked)
        if problems := self._problems():
            raise DataError(problems)

    def _archive(self, archive: Archive, target: Path) -> None:
        """Download an archive unless it is here, and compare it with what is known of it."""
        if target.exists():
            url = self._record().get(archive.name, {}).get("url", "a file that was put here")
        else:
            url = download(archive.urls, target, self.say, waits_s=self.waits_s)
        size, digest = target.stat().st_size, sha256(target, f"checking {archive.name}")
        before = self._record().get(archive.name)
        if archive.exact and size != archive.size:
            self._refuse(target, f"has {size:,} bytes, but the official file has {archive.size:,}")
        if archive.sha256 and digest != archive.sha256:
            self._refuse(target, f"has the SHA-256 {digest}, but the official file has {archive.sha256}")
        if before is not None and before["sha256"] != digest:
            what = (
                f"has the SHA-256 {digest}, but had {before['sha256']} on {before['at']}: it was changed at its place"
            )
            remedy = f"delete {self.folder / RECORD} to accept the new one"
            raise DataError([Problem(str(target), what, remedy)])
        if before is None:
            at = datetime.now(UTC).strftime("%Y-%m-%d")
            entry = {"url": url, "size": size, "sha256": digest, "at": at}
            write_json(self.folder / RECORD, {**self._record(), archive.name: entry})
            known = "as expected" if archive.sha256 else "no official digest is published: it is recorded for next time"
            self.say(f"{archive.name}: SHA-256 {digest} ({known})")

    def _refuse(self, target: Path, what: str) -> None:
        """Set a wrong archive aside, so that the next run downloads it again, and raise DataError."""
        aside = target.with_name(f"{target.name}.wrong")
        target.replace(aside)
        raise DataError([Problem(str(aside), f"{what}; run the same command to download it again")])

    def _arrange(self, unpacked: Path) -> None:
        """Move videos to FOLDER/CLASS, lists to FOLDER/lists. Raises DataError, before moving, for files in the way."""
        moves = dict[Path, Path]()
        for path in sorted(unpacked.rglob("*")):
            if path.is_file() and not path.is_symlink():
                if path.suffix.lower() == ".avi":
                    moves[path] = self.folder / path.parent.name / path.name
                elif path.suffix.lower() == ".txt":
                    moves[path] = self.folder / LISTS / path.name
        other = [to for path, to in moves.items() if to.exists() and to.stat().st_size != path.stat().st_size]
        if other:
            what = f"holds other files of the same names: {some(path.relative_to(self.folder) for path in other)}"
            raise DataError([Problem(str(self.folder), what, "an empty folder, with --to")])
        for path, to in moves.items():
            to.parent.mkdir(parents=True, exist_ok=True)
            path.replace(to)

    def _problems(self) -> list[Problem]:
        """Return what is missing of the data set: videos that the three official splits list, classes, the number."""
        found: list[Problem] = []
        for split in (1, 2, 3):
            try:
                catalog = load_catalog(self.data.model_copy(update={"split": split}))
            except DataError as error:
                return error.problems
            if (classes := catalog["label"].nunique()) != self.official.classes:
                what = f"split {split} lists {classes} classes, but there are {self.official.classes}"
                found.append(Problem(str(self.folder / LISTS), what))
        if (count := len(list(self.folder.glob("*/*.avi")))) != self.official.count:
            found.append(Problem(str(self.folder), f"holds {count:,} videos, but there are {self.official.count:,}"))
        return found

    def _terms(self) -> str:
        """Return what is downloaded, from where, and under which licence."""
        official, size = self.official, self._remaining()
        return (
            f"{official.title}\n"
            f"  from     {official.videos.urls[0]}\n"
            f"  page     {official.page}\n"
            f"  licence  {official.licence}\n"
            f"  size     {amount(size)} to download, {amount(official.unpacked)} unpacked in {self.folder}"
        )

    def _remaining(self) -> int:
        """Return the bytes that are still to be downloaded."""
        here = 0
        for archive in (self.official.lists, self.official.videos):
            target = self.folder / WORK / archive.name
            for path in (target, target.with_name(f"{target.name}.part")):
                here += path.stat().st_size if path.exists() else 0
        return max(0, self.official.lists.size + self.official.videos.size - here)

    def _check_space(self) -> None:
        """Raise DataError unless archives, archives in archives and videos fit beside each other."""
        inner = 0 if self.official.lists.name.endswith(".zip") else self.official.videos.size
        needed, free = self._remaining() + inner + self.official.unpacked + SPARE, free_bytes(self.folder.absolute())
        if free < needed:
            what = f"has {amount(free)} free, but archives and videos need {amount(needed)} while they are unpacked"
            raise DataError([Problem(str(self.folder), what, "another disk, with --to")])

    def _record(self) -> JsonObject:
        return read_json(self.folder / RECORD) or {}
