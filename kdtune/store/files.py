"""Files that are whole or not there: atomic writes, JSON and lines of it, what a full disk says. No torch needed."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdtune.errors import DamageError, Problem, StoreError
from kdtune.parse import problem_of
from kdtune.store.seal import REMEDY, is_sealed, note_damage, opened, sealed

#: Most damaged lines of a file that are named.
SHOWN = 3


def disk_full(error: BaseException) -> bool:
    """Is it that the disk, or what the user may have of it, is used up?"""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full_words(error: BaseException) -> str:
    """What to say of it, with the file that could not be written where that is known."""
    name = getattr(error, "filename", None)
    return "the disk is full" + (f": {name} could not be written" if name else "")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """An OSError of a write knows no file name; whoever reads of a full disk wants to know which disk."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write so that a reader sees the whole file or none, also after a power cut: temporary file, fsync, rename."""
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def clear_unfinished(folder: Path, name: str = "") -> None:
    """Remove what killed processes had not finished writing to the file `name` in `folder`, or to any: for the holder
    of its lock alone."""
    for unfinished in folder.glob(f".{name}*"):
        unfinished.unlink(missing_ok=True)


def as_json(content: Any, indent: int | None = None) -> str:
    """Return `content` as JSON. Raises ValueError for NaN and infinity: JSON has neither, and no record holds one."""
    return json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a record, sealed (seal.py)."""
    write_atomic(path, sealed(as_json(content, indent=1)) + "\n")


def read_json(path: Path, needs: Iterable[str] = ()) -> dict[str, Any] | None:
    """Return the record of a JSON file without its seal, or None where there is no file.

    Raises DamageError for one that is not what was written, is no object, or lacks a key of `needs`, and StoreError
    where it cannot be read.
    """
    content = _content(path)
    return None if content is None else opened(content.rstrip(b"\n"), path, needs=needs)


def append_jsonl(path: Path, row: dict[str, Any], *, sync: bool = True) -> None:
    """Add a line. A crash leaves at most a torn last line, which `read_jsonl` leaves out and the next append cuts.

    Without `sync` nobody waits for the disk: a power cut may take the last lines.
    """
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            whole = file.seek(0, os.SEEK_END)
            while whole > 0:
                file.seek(whole - 1)
                if file.read(1) == b"\n":
                    break
                whole -= 1
            file.truncate(whole)
            file.write(sealed(as_json(row)).encode() + b"\n")
            file.flush()
            if sync:
                os.fsync(file.fileno())


def read_jsonl(path: Path, needs: Iterable[str] = (), *, passing_over: bool = False) -> list[dict[str, Any]]:
    """Return the whole lines of a file, without their seals; a last line without its end is not one.

    Raises DamageError, naming the lines, where some are not what was written, and StoreError where the file cannot be
    read. With `passing_over` those lines are left out, and a note names them.
    """
    content = _content_of_lines(path, passing_over)
    rows, problems = [], list[Problem]()
    *lines, torn = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        if line:
            try:
                rows.append(opened(line, path, number, needs))
            except DamageError as error:
                problems += error.problems
    if is_sealed(torn[:-1]):  # a torn line lacks its end, and this one has a byte too many: its end was changed
        problems.append(Problem(f"{path}:{len(lines) + 1}", f"is damaged: its end is not what was written; {REMEDY}"))
    if problems and not passing_over:
        raise DamageError(problems[:SHOWN])
    if problems:
        note_damage(DamageError(problems[:SHOWN]))
    return rows


def _content_of_lines(path: Path, passing_over: bool) -> bytes:
    try:
        return _content(path) or b""
    except DamageError as error:
        if not passing_over:
            raise
        note_damage(error)
        return b""


def _content(path: Path) -> bytes | None:
    """The bytes of a record, or None where there is none. Raises DamageError for a folder, StoreError for the rest."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except (IsADirectoryError, NotADirectoryError) as error:
        raise DamageError([Problem(str(path), "is a folder, or lies below a file")]) from error
    except OSError as error:
        raise StoreError([problem_of(path, error)]) from error


def set_damaged_lines_aside(path: Path, needs: Iterable[str] = ()) -> None:
    """Keep the sound lines of a file that has damaged ones, and the file as it was under the name `….damaged`."""
    try:
        read_jsonl(path, needs)
    except DamageError:
        sound = [] if path.is_dir() else read_jsonl(path, needs, passing_over=True)
        set_aside(path)
        write_jsonl(path, sound)


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder to a name that nothing reads, beside its place; return that."""
    number = 0
    while (aside := path.with_name(f"{path.name}.damaged{number or ''}")).exists():
        number += 1
    path.rename(aside)
    return aside


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace all lines at once."""
    write_atomic(path, "".join(sealed(as_json(row)) + "\n" for row in rows))
