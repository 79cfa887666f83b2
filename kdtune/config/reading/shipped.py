"""Find a sweep file by its name: here, in `sweeps/`, or among the sweeps that come with kdtune."""

from __future__ import annotations

import os
from pathlib import Path

from kdtune.errors import ConfigError
from kdtune.near import did_you_mean, nearest
from kdtune.parse import printable

#: Part of the package; in a checkout, a link to the top-level folder.
SHIPPED = Path(__file__).resolve().parents[2] / "sweeps"
SUFFIX = ".yaml"


def shipped() -> list[str]:
    """Return the names of the sweeps that come with kdtune, as the command `sweep` accepts them."""
    return sorted(path.name for path in SHIPPED.glob(f"*{SUFFIX}"))


def located(file: Path) -> Path:
    """Return the file that a user means by `file`.

    Searches for a bare name, with or without `.yaml`, in the working directory, in `sweeps/` below it, and among the
    shipped sweeps. Returns any other path unchanged. Raises ConfigError for a bare name that is not found, and for a
    path that does not exist where its folder holds a file with a similar name.
    """
    if file.name in ("", ".", ".."):
        return file
    if len(file.parts) != 1:
        if not os.path.lexists(file) and (near := nearest(file.name, _files(file.parent))) is not None:
            raise ConfigError.at(printable(str(file)), f"does not exist, did you mean {file.parent / near}?")
        return file
    for place in (Path(), Path("sweeps"), SHIPPED):
        for name in dict.fromkeys((file.name, f"{file.name}{SUFFIX}")):
            if os.path.exists(place / name):
                return place / name
    here = [name for place in (Path(), Path("sweeps")) for name in _files(place)]
    known = list(dict.fromkeys([*shipped(), *here]))
    what = "was not found here, in sweeps/ or among the sweeps that come with kdtune"
    what += did_you_mean(file.name.removesuffix(SUFFIX) + SUFFIX, known)
    raise ConfigError.at(printable(str(file)), what, f"a path, or one of {', '.join(shipped())}")


def _files(folder: Path) -> list[str]:
    """Return the names of the sweep files in a folder; empty for a folder that cannot be read."""
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(SUFFIX))
    except (OSError, ValueError):
        return []
