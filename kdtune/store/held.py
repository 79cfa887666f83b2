"""Check whether a process holds a lock, without writing anything."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def is_held(path: Path) -> bool:
    """Return whether a process holds the FileLock of this file."""
    if not path.exists():
        return False
    if fcntl is None:
        try:
            with FileLock(path).acquire(timeout=0):
                return False
        except Timeout:
            return True
    with path.open("rb") as file:
        try:
            # Shared: several who look at once do not take each other for the holder.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
