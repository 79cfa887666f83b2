"""Atomic writes, JSON records and JSON lines, and errors of a full disk. Imports no torch."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdtune.errors import DamageError, Problem, StoreError
from kdtune.parse import JsonObject, problem_of
from kdtune.store.seal import REMEDY, is_sealed, note_damage, opened, sealed

#: Maximum number of damaged lines listed per file.
SHOWN = 3


def disk_full(error: BaseException) -> bool:
    """Return whether the error is ENOSPC or EDQUOT."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full_words(error: BaseException) -> str:
    """Return the message for a full disk, with the file's name if the error has one."""
    name = getattr(error, "filename", None)
    return "the disk is full" + (f": {name} could not be written" if name else "")


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Add the file's name to an OSError. A failed write has none, but the user needs to know which disk is full."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file by temporary file, fsync and rename: readers see all of it or none, even after a power cut."""
    with named(path):
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
    """Remove the temporary files of killed writers of `name` in `folder`, or of any file. Call it under the lock."""
    for unfinished in folder.glob(f".{name}*"):
        unfinished.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_json(content: Any, indent: int | None = None) -> str:
    """Return `content` as JSON. Raises ValueError for NaN and infinity, which JSON lacks and no record may hold."""
    return json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a record atomically, with its seal (seal.py)."""
    write_atomic(path, sealed(as_json(content, indent=1)) + "\n")


def read_json(path: Path, needs: Iterable[str] = ()) -> JsonObject | None:
    """Return the record of a JSON file without its seal, or None if there is no file.

    Raises DamageError if the content fails its checksum, is not an object, or lacks a key of `needs`; StoreError if the
    file cannot be read.
    """
    content = _content(path)
    return None if content is None else opened(content.rstrip(b"\n"), path, needs=needs)


def append_jsonl(path: Path, row: Mapping[str, Any], *, sync: bool = True) -> None:
    """Append a line. A crash leaves at most a torn last line: `read_jsonl` skips it and the next append removes it.

    Without `sync` the line is not flushed to disk: a power cut may lose the last lines.
    """
    with named(path):
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


def read_jsonl(path: Path, needs: Iterable[str] = (), *, passing_over: bool = False) -> list[JsonObject]:
    """Return the records in the lines of a file, without their seals. Skips a torn last line.

    Raises DamageError, naming the lines, if some are damaged, and StoreError if the file cannot be read. With
    `passing_over`, skips damaged lines and logs a note that names them.
    """
    rows, problems = [], list[Problem]()
    try:
        content = _content(path) or b""
    except DamageError as error:
        content, problems = b"", error.problems
    *lines, torn = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        if line:
            try:
                rows.append(opened(line, path, number, needs))
            except DamageError as error:
                problems += error.problems
    if is_sealed(torn[:-1]):  # a torn line is cut short, but this one is complete: its newline was changed
        problems.append(Problem(f"{path}:{len(lines) + 1}", f"is damaged: its end was changed; {REMEDY}"))
    if problems and not passing_over:
        raise DamageError(problems[:SHOWN])
    if problems:
        note_damage(DamageError(problems[:SHOWN]))
    return rows


def _content(path: Path) -> bytes | None:
    """Return the bytes of a file, or None if there is none.

    Raises DamageError if a folder is in its place, and StoreError if it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except (IsADirectoryError, NotADirectoryError) as error:
        raise DamageError.at(path, "is a folder, or lies below a file") from error
    except OSError as error:
        raise StoreError([problem_of(path, error)]) from error


def set_damaged_lines_aside(path: Path, needs: Iterable[str] = ()) -> None:
    """Rename a file with damaged lines to `….damaged`, and write its sound lines in its place."""
    try:
        read_jsonl(path, needs)
    except DamageError:
        sound = [] if path.is_dir() else read_jsonl(path, needs, passing_over=True)
        set_aside(path)
        write_jsonl(path, sound)


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder to a name beside it that nothing reads; return that path."""
    number = 0
    while (aside := path.with_name(f"{path.name}.damaged{number or ''}")).exists():
        number += 1
    path.rename(aside)
    return aside


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write all lines of a file atomically, each with its seal."""
    write_atomic(path, "".join(sealed(as_json(row)) + "\n" for row in rows))
