"""Check the folders that a user names before a command does any work."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from kdtune.errors import Problem, StoreError, UserError
from kdtune.store.files import disk_full, named
from kdtune.urls import SecretUrl

#: The store that is used if neither `--store` nor the variable names one.
DEFAULT_STORE, VARIABLE = "runs", "KDTUNE_STORE"
#: The kinds of place that are allowed, for a problem's `allowed`.
WRITABLE, READABLE = "a folder that can be written to, or made", "a folder that can be read"


def default_place() -> str:
    """Return the default store: the variable KDTUNE_STORE, or `runs`."""
    return os.environ.get(VARIABLE) or DEFAULT_STORE


def check_place(text: str, option: str, refuse: type[UserError] = StoreError) -> None:
    """Raise `refuse` unless `text` is a URL or a folder's name that records may contain.

    Refuses an empty text, a NUL, invalid UTF-8, and a text with a password that is not a URL: it would become the name
    of a folder.
    """
    shown = str(SecretUrl(text))
    is_url = "://" in text.strip(":/") and not text.startswith("file:")
    if not text.strip():
        what = f"names no folder, got {shown!r}"
    elif "\0" in text:
        what = f"holds a NUL, got {shown!r}"
    elif text.encode(errors="ignore").decode() != text:
        what = f"is not UTF-8, got {shown!r}"
    elif not is_url and shown != text:
        what = f"{shown} holds a password or token, but is not a URL"
    else:
        return
    raise refuse.at(option, what, "a folder, or a URL such as s3://bucket/path")


def check_readable(folder: Path, option: str, refuse: type[UserError] = StoreError) -> None:
    """Raise `refuse` if `folder` exists but is not a folder or cannot be listed."""
    try:
        if folder.is_symlink():
            folder.resolve(strict=True)  # otherwise a dangling link passes for a folder yet to be made
        with os.scandir(folder):
            pass
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links
        if not isinstance(error, FileNotFoundError) or folder.is_symlink():
            raise refuse([_problem(folder, option, "read", error, READABLE)]) from error


def check_writable(folder: Path, option: str, refuse: type[UserError] = StoreError) -> None:
    """Make `folder` and write to an unnamed file in it; raise `refuse` if that fails.

    Permission bits do not suffice: a mount may be read-only, a server may squash root, a quota may be used up. Raises
    OSError with the folder's name for a full disk.
    """
    check_readable(folder, option, refuse)
    try:
        with named(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(b"\0")
                probe.flush()
    except (OSError, ValueError) as error:
        if disk_full(error):
            raise
        raise refuse([_problem(folder, option, "written", error, WRITABLE)]) from error


def _problem(folder: Path, option: str, verb: str, error: Exception, allowed: str) -> Problem:
    return Problem(option, f"{folder} cannot be {verb}: {getattr(error, 'strerror', None) or error}", allowed)
