"""Files that are whole or not there: atomic writes, JSON and lines of it, what a full disk says. No torch needed."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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


def write_json(path: Path, content: Any) -> None:
    write_atomic(path, as_json(content, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


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
            file.write(as_json(row).encode() + b"\n")
            file.flush()
            if sync:
                os.fsync(file.fileno())


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; a last line without its end is not one."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines if line]


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Replace all lines at once."""
    write_atomic(path, "".join(as_json(row) + "\n" for row in rows))
