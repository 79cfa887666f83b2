"""Unpack archives: ZIP in this process, RAR with a program of the system that is tried first on a tiny archive."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from kdtune.errors import DataError, Problem
from kdtune.parse import first_line, printable

#: A program, and its arguments for an archive and a folder.
Arguments = Callable[[str, str], list[str]]
#: Programs that read RAR, best first. 7z of some distributions cannot, which the trial shows.
PROGRAMS: dict[str, Arguments] = {
    "unrar": lambda archive, folder: ["x", "-o+", "-y", "-inul", archive, f"{folder}/"],
    "unar": lambda archive, folder: ["-quiet", "-force-overwrite", "-no-directory", "-o", folder, archive],
    "bsdtar": lambda archive, folder: ["-x", "-f", archive, "-C", folder],
    "7zz": lambda archive, folder: ["x", "-y", "-bd", f"-o{folder}", archive],
    "7z": lambda archive, folder: ["x", "-y", "-bd", f"-o{folder}", archive],
}
INSTALL = (
    "install one of them: `apt install unar` or `apt install libarchive-tools` (Debian, Ubuntu), `dnf install bsdtar` "
    "(Fedora), `brew install unar` (macOS), `conda install -c conda-forge libarchive` (without administrator)"
)


@dataclass(frozen=True)
class Unpacker:
    """A program that unpacks RAR."""

    name: str
    path: str

    def unpack(self, archive: Path, folder: Path) -> None:
        """Unpack into `folder`, which is created. Raises DataError where the program fails, OSError for a full disk."""
        folder.mkdir(parents=True, exist_ok=True)
        command = [self.path, *PROGRAMS[self.name](str(archive.absolute()), str(folder.absolute()))]
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}  # names in an archive may be Unicode
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
        if done.returncode != 0:
            text = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
            reason = printable(text[-1]) if text else f"it ended with {done.returncode}"
            raise DataError([Problem(str(archive), f"{self.name} cannot unpack it: {reason}")])


def find_unpacker() -> Unpacker:
    """Return the first installed program that unpacks a tiny RAR archive.

    Raises DataError with what to install where there is none.
    """
    failed = []
    for name in PROGRAMS:
        path = shutil.which(name)
        if path is None:
            continue
        found = Unpacker(name, path)
        reason = _trial(found)
        if not reason:
            return found
        failed.append(f"{path} does not read RAR ({reason})")
    what = "; ".join(failed) or "no program that unpacks RAR is installed"
    raise DataError([Problem("unpacking", f"{what}; {INSTALL}", ", ".join(PROGRAMS))])


def unzip(archive: Path, folder: Path) -> None:
    """Unpack a ZIP archive into `folder`. Raises DataError where it is damaged."""
    try:
        with zipfile.ZipFile(archive) as content:
            content.extractall(folder)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError([Problem(str(archive), f"is not a sound ZIP archive: {first_line(error)}")]) from error


def stored_rar(files: dict[str, bytes]) -> bytes:
    """Return a RAR archive (version 4) that holds files without compression: name → content.

    Source: the technical note that comes with unrar (blocks 0x72 marker, 0x73 archive, 0x74 file, 0x7b end).
    """
    blocks = [b"Rar!\x1a\x07\x00", _block(0x73, 0, b"\0" * 6)]
    for name, content in files.items():
        packed = name.replace("/", "\\").encode("ascii")
        size, number = len(content).to_bytes(4, "little"), crc32(content).to_bytes(4, "little")
        time, attributes = (0x5A21_0000).to_bytes(4, "little"), (0x20).to_bytes(4, "little")
        # Both sizes, system (Windows), CRC, time, version 2.0, method "store", length of the name, attributes.
        fields = size + size + b"\x02" + number + time + b"\x14\x30" + len(packed).to_bytes(2, "little") + attributes
        blocks += [_block(0x74, 0x8000, fields + packed), content]
    return b"".join([*blocks, _block(0x7B, 0x4000, b"")])


def _block(kind: int, flags: int, fields: bytes) -> bytes:
    header = bytes([kind]) + flags.to_bytes(2, "little") + (7 + len(fields)).to_bytes(2, "little") + fields
    return (crc32(header) & 0xFFFF).to_bytes(2, "little") + header


def _trial(unpacker: Unpacker) -> str:
    """Return why the program does not unpack a tiny archive; empty where it does."""
    content = {"kdtune/trial.txt": b"kdtune"}
    with tempfile.TemporaryDirectory(prefix="kdtune-") as temporary:
        archive, folder = Path(temporary) / "trial.rar", Path(temporary) / "unpacked"
        archive.write_bytes(stored_rar(content))
        try:
            unpacker.unpack(archive, folder)
        except DataError as error:
            return error.problems[0].what
        except OSError as error:
            return error.strerror or str(error)
        found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return "" if found == content else "it unpacks other files"
