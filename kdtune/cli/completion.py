"""Completion in the shell: commands, options, sweep files, sweeps of the store, and the paths of --set.

A shell that has run what `kdtune completion SHELL` prints calls kdtune with a variable of argcomplete set, and gets the
possible words back.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdtune.config.reading.shipped import SUFFIX, shipped

#: The shells that argcomplete has code for, of those that people use.
SHELLS = ("bash", "zsh", "fish")
#: The variable by which argcomplete's code asks for words.
ASKED = "_ARGCOMPLETE"

Completer = Callable[..., Iterable[str]]


def complete_if_asked() -> None:
    """Print the possible words and end the process if a shell asks for them."""
    if ASKED in os.environ:
        import argcomplete

        from kdtune.cli.options import parser

        argcomplete.autocomplete(parser(), always_complete_options=False)


def completed_by(action: argparse.Action, completer: Completer) -> None:
    """Complete the values of `action` by `completer`."""
    action.completer = completer  # type: ignore[attr-defined]


def sweep_files(prefix: str, **_: Any) -> list[str]:
    """Return the shipped sweeps and the sweep files here and in `sweeps/`; below a folder, its files and folders."""
    folder, slash, _name = prefix.rpartition("/")
    found: list[str] = []
    with suppress(OSError):
        for path in Path(folder or ("/" if slash else ".")).iterdir():
            if path.is_dir():
                found.append(f"{folder}{slash}{path.name}/")
            elif path.suffix in (SUFFIX, ".yml"):
                found.append(f"{folder}{slash}{path.name}")
    return found if slash else sorted({*found, *shipped()})


def sweep_names(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Return the names of the sweeps in the store."""
    from kdtune.store import StoreFiles

    if "://" in parsed_args.store:
        return []  # a shell waits for the answer
    try:
        return StoreFiles(parsed_args.store).sweeps()
    except Exception:  # an unreadable store has nothing to complete
        return []


def set_paths(prefix: str, **_: Any) -> list[str]:
    """Return the paths of a sweep file's values, with the sign that follows them."""
    from kdtune.config.space import all_paths
    from kdtune.config.sweep import SweepConfig

    return [f"{path}=" for path in (*all_paths(), *SweepConfig.model_fields)]
