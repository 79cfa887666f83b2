"""Explain in plain words that this Python is not the one that kdtune is installed for.

Any Python 3 can run this module: it uses neither another module of kdtune nor new syntax.
"""

import os
import shlex
import sys

#: The oldest Python that runs kdtune.
OLDEST = (3, 11)
#: The exit code of a refusal, as in errors.py, which an old Python cannot import.
REFUSED = 2


def explained(error, arguments):  # type: ignore[no-untyped-def]
    """Print why `error` came, and the command with `arguments` that works, to standard error. Return the exit code.

    Raise `error` again if this Python has what kdtune needs: then it is a bug.
    """
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    python = os.path.join(root, ".venv", "bin", "python")
    if sys.version_info < OLDEST:
        what = f"kdtune needs Python {OLDEST[0]}.{OLDEST[1]} or later, and this is {sys.version.split()[0]}"
    elif isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] != "kdtune":
        what = f"kdtune is not installed for this Python, which has no {error.name}"
    else:
        raise error
    print(f"kdtune: {what} ({sys.executable})", file=sys.stderr)
    if os.path.exists(python) and os.path.abspath(sys.executable) != python:
        words = [_short(python), "-m", "kdtune", *arguments]
        print("  run:         " + " ".join(map(shlex.quote, words)), file=sys.stderr)
        print(
            "  or activate: source " + shlex.quote(_short(os.path.join(root, ".venv", "bin", "activate"))),
            file=sys.stderr,
        )
    else:
        print(f"  `make install` in {root} installs what is missing into .venv", file=sys.stderr)
    return REFUSED


def _short(path):  # type: ignore[no-untyped-def]
    """Return the path from the working directory where `path` is below it."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative
