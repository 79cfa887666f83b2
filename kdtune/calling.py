"""Repeat the call of kdtune in the commands that it prints, so that they can be pasted into the same shell."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def pasteable(*words: str) -> str:
    """Return the shell command that calls kdtune with `words`, as this process was called."""
    return shlex.join([*_call(), *words])


def _call() -> list[str]:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.name.partition(".")[0] == "kdtune":
        return [_word(sys.orig_argv[0]), "-m", "kdtune"]
    if os.path.basename(sys.argv[0]) == "kdtune":
        return [_word(sys.argv[0])]
    # A program or notebook calls the library: name the command beside its interpreter.
    beside = Path(sys.executable).with_name("kdtune")
    return [_word(str(beside))] if beside.exists() else [_word(sys.executable), "-m", "kdtune"]


def _word(program: str) -> str:
    """Return `program` as short as the shell finds it: by its name, or by its path from the working directory."""
    if os.sep not in program:
        return program
    path, name = os.path.abspath(program), os.path.basename(program)
    if (found := shutil.which(name)) is not None and os.path.abspath(found) == path:
        return name
    try:
        relative = os.path.relpath(path)
    except OSError:  # the working directory is gone
        return path
    return path if relative.startswith(os.pardir) else relative
