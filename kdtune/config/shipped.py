"""Find a sweep file by its name: here, in `sweeps/`, or among the sweeps that come with kdtune."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from kdtune.errors import ConfigError, Problem
from kdtune.parse import printable

#: Part of the package; in a checkout, a link to the top-level folder.
SHIPPED = Path(__file__).resolve().parents[1] / "sweeps"
SUFFIX = ".yaml"


def shipped() -> list[str]:
    """Return the names of the sweeps that come with kdtune, as the command `sweep` accepts them."""
    return sorted(path.name for path in SHIPPED.glob(f"*{SUFFIX}"))


def located(file: Path) -> Path:
    """Return the file that a user means by `file`.

    Searches for a bare name, with or without `.yaml`, in the working directory, in `sweeps/` below it, and among the
    shipped sweeps. Returns any other path unchanged, without checking it. Raises ConfigError for a bare name that is
    not found.
    """
    if len(file.parts) != 1 or file.name in ("", ".", ".."):
        return file
    for place in (Path(), Path("sweeps"), SHIPPED):
        for name in dict.fromkeys((file.name, f"{file.name}{SUFFIX}")):
            if os.path.exists(place / name):
                return place / name
    near = get_close_matches(file.name.removesuffix(SUFFIX) + SUFFIX, shipped(), n=1)
    what = "was not found here, in sweeps/ or among the sweeps that come with kdtune"
    what += f"; did you mean {near[0]}?" if near else ""
    raise ConfigError([Problem(printable(str(file)), what, f"a path, or one of {', '.join(shipped())}")])
