"""A private folder with a short path for Ray's sockets, logs and token, and Ray Tune's scratch files.

The path of a Unix socket has at most 107 bytes, and Ray's sockets are deep in its folder. Batch systems set TMPDIR to
longer paths than that allows, so other places are tried as well.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from kdtune.errors import Problem, ResourceError

PREFIX = "kdtune-ray-"
#: The longest path that `head.py` and Ray append, for the largest process id of Linux.
_SOCKET = "/r/s4194304/sockets/plasma_store"
#: Maximum bytes of a socket's path, without the final zero.
_LONGEST = 103 if sys.platform == "darwin" else 107
#: Length of the name that `mkdtemp` makes from the prefix, with its slash.
_NAME = len(f"/{PREFIX}12345678")
#: Maximum bytes of the path in which the private folder is made.
FITS = _LONGEST - len(_SOCKET) - _NAME
#: Bytes that must be free: Ray's logs and Ray Tune's state, which are a few MiB.
ROOM = 64 * 2**20
#: Held by the folder's owner. Named after the machine, because machines may not see each other's locks.
_LOCK = f"lock-{platform.node()}"


@contextmanager
def private_folder(environment: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """Make a folder that only this user can enter, with a short path, and remove it at the end.

    It is made in RAY_TMPDIR or, without that, in the first usable one of TMPDIR and the machine's usual places. Folders
    that killed processes left there are removed. Raises ResourceError if no place is usable.
    """
    folder, lock = _made(environment)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release(force=True)


def places(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the folders to try, best first."""
    if chosen := environment.get("RAY_TMPDIR"):
        return [Path(chosen)]
    named = [environment.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    usual = [tempfile.gettempdir()] if sys.platform == "win32" else ["/tmp", "/var/tmp"]
    found = [*named, *usual, environment.get("XDG_RUNTIME_DIR"), "/dev/shm"]
    return [Path(place) for place in dict.fromkeys(filter(None, found))]


def sweep_left_overs(place: Path) -> None:
    """Remove the folders in `place` that killed processes of this user left on this machine."""
    try:
        found = [entry for entry in os.scandir(place) if entry.name.startswith(PREFIX)]
    except OSError:
        return
    for entry in found:
        with suppress(OSError, Timeout):
            if not entry.is_dir(follow_symlinks=False) or not _ours(entry):
                continue
            file = Path(entry.path) / _LOCK
            if file.is_file():  # otherwise it belongs to another machine, or is being made
                with FileLock(file, timeout=0):
                    shutil.rmtree(entry.path, ignore_errors=True)


def _ours(entry: os.DirEntry[str]) -> bool:
    return not hasattr(os, "getuid") or entry.stat(follow_symlinks=False).st_uid == os.getuid()


def _made(environment: Mapping[str, str]) -> tuple[Path, FileLock]:
    refused = []
    for place in places(environment):
        try:
            if environment.get("RAY_TMPDIR"):
                place.mkdir(parents=True, exist_ok=True)  # as Ray does
            return _made_in(place.absolute())
        except OSError as error:
            refused.append(f"{place}: {error.strerror or error}")
    where = "RAY_TMPDIR" if environment.get("RAY_TMPDIR") else "TMPDIR"
    allowed = f"RAY_TMPDIR may name any folder that can be written to, of at most {FITS} characters"
    raise ResourceError([Problem(where, f"no folder for Ray's sockets: {'; '.join(refused)}", allowed)])


def _made_in(place: Path) -> tuple[Path, FileLock]:
    """Make the folder in `place` and lock it. Raises OSError if Ray cannot work there."""
    if (length := len(os.fsencode(place))) > FITS:
        raise OSError(f"has {length} characters, and {FITS} fit")
    sweep_left_overs(place)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    try:
        if (free := shutil.disk_usage(folder).free) < ROOM:
            raise OSError(f"has {free / 2**20:.0f} MiB free, and {ROOM // 2**20} are needed")
        (folder / "room").write_bytes(bytes(2**20))  # a quota shows only on writing
        (folder / "room").unlink()
        _try_socket(folder / "socket")
        lock = FileLock(folder / _LOCK, timeout=0)
        with suppress(Timeout):
            lock.acquire()
        if not lock.is_locked or not (folder / _LOCK).exists():
            raise OSError("was swept by another process at this moment")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, lock


def _try_socket(path: Path) -> None:
    """Raise OSError if the file system does not support sockets."""
    if hasattr(socket, "AF_UNIX"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(path))
        path.unlink()
