"""On a terminal of 80 columns no line of a command is cut or wrapped by the terminal; in a pipe lines stay whole."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from databases import empty_database
from helpers import ROOT, Screen, kdtune_here
from rich.cells import cell_len

from kdtune.cli.options import parser
from kdtune.errors import EXIT_OK, EXIT_USER_ERROR
from kdtune.execute.books import Ending
from kdtune.messages import command_lines

WIDTH = 80


def too_wide(text: str) -> list[str]:
    """Return the lines that could have been broken and were not. A path is one word, to be copied."""
    lines = [line.removesuffix(" \\") for line in text.splitlines() if cell_len(line) > WIDTH]
    return [line for line in lines if len(line.split()) > 1]


def words(text: str) -> list[str]:
    return [word for word in text.split() if word != "\\"]


@pytest.fixture
def at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.setenv("TERM", "dumb")  # lines instead of a table that is redrawn


def said(*arguments: str, store: Path, code: int = EXIT_OK) -> str:
    """Return all that a command writes to a terminal, and check that none of it is too wide."""
    done = kdtune_here(*arguments, store=store, stream=Screen)
    assert done.returncode == code, done.stderr
    text = done.stderr + done.stdout
    assert too_wide(text) == []
    return text


def commands(top: argparse.ArgumentParser, *before: str) -> Iterator[tuple[str, ...]]:
    yield before
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from commands(sub, *before, name)


@pytest.mark.usefixtures("at_80_columns")
@pytest.mark.parametrize("command", list(commands(parser())), ids=" ".join)
def test_help_and_refused_options(command: tuple[str, ...], tmp_path: Path) -> None:
    assert "usage: " in said(*command, "--help", store=tmp_path)
    refused = said(*command, "--no-such-option", "x" * 30, "y" * 30, store=tmp_path, code=EXIT_USER_ERROR)
    assert refused.startswith("kdtune")


@pytest.mark.usefixtures("at_80_columns")
def test_what_commands_say_of_a_sweep(
    swept: tuple[Path, Ending], sweep_file: Path, sweep_form: dict[str, Any], tmp_path: Path
) -> None:
    """The same words go to a pipe, in lines that are not wrapped."""
    store, file = swept[0], str(sweep_file)
    empty_database(store / "mlflow.db")
    text = said("sweep", file, "--backend", "inprocess", "--set", "search.candidates=4", store=store)
    assert "in the store 12 found, 0 continued, 0 new\nto train     nothing\n" in text
    command = text[text.index("Continue:") :].partition(":")[2].partition("\n\n")[0].replace("\\\n", " ")
    again = ["sweep", file, "--set", "search.candidates=8", "--backend", "inprocess"]
    assert shlex.split(command)[-len(again) :] == again
    bad = tmp_path / "bad.yaml"
    bad.write_text(yaml.safe_dump({**sweep_form, "trial": {**sweep_form["trial"], "stages": {"early": 3, "late": 2}}}))
    for code, *arguments in (
        (EXIT_OK, "plan", file),
        (EXIT_OK, "plan", str(ROOT / "sweeps" / "paper.yaml")),
        (EXIT_USER_ERROR, "plan", str(bad), "--set", "resources.cpu=-1", "--set", "student.width=none"),
        (EXIT_USER_ERROR, "results", "tinny"),
    ):
        shown, piped = said(*arguments, store=store, code=code), kdtune_here(*arguments, store=store)
        assert words(shown) == words(piped.stderr + piped.stdout), arguments
        if arguments[0] == "plan":
            assert max(map(len, (piped.stderr + piped.stdout).splitlines())) > WIDTH
    for arguments in (
        ["results", "tiny"],
        ["results", "tiny", "--accuracies"],
        ["status"],
        ["status", "tiny"],
        ["teacher", "list"],
        ["store", "check"],
        ["data", "verify"],
    ):
        said(*arguments, store=store)


def test_a_long_command_continues_as_a_shell_reads_it() -> None:
    command = shlex.join(["kdtune", "sweep", "my file.yaml", "--set", "a='b c'", "--set", 'd="e"', "--store", "x" * 90])
    shown = command_lines("Continue:", command, 40)
    assert shown.startswith("Continue:    kdtune sweep ")
    assert shlex.split(shown.partition(":")[2].replace("\\\n", " ")) == shlex.split(command)
    assert max(map(len, shown.splitlines()[:-1])) <= 40
    assert command_lines("Continue:", command, None) == f"Continue:    {command}"
