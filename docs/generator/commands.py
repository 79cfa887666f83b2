"""The command reference: every command and option, from the parser in kdtune/cli/options.py."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from unittest.mock import patch

from kdtune.cli.options import parser


def page() -> str:
    """Return the generated part of the page as Markdown."""
    # The same page on every machine: no width of a terminal, no store of this user.
    with patch.dict(os.environ, {"COLUMNS": "100"}):
        os.environ.pop("KDTUNE_STORE", None)
        return "\n".join(_section(each) for each in _leaves(parser("kdtune")))


def _leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parser of each command, including `data prepare` and the like, in the order of the help."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for group in groups:
        for below in dict.fromkeys(group.choices.values()):
            yield from _leaves(below)
    if not groups:
        yield parser


def _section(parser: argparse.ArgumentParser) -> str:
    name = parser.prog.partition(" ")[2]
    usage = parser.format_usage().removeprefix("usage: ").replace("\n" + " " * len("usage: "), "\n").strip()
    parts = [f"## {name}", _sentence(parser.description or ""), _block(usage)]
    rows = [
        f"| {_option(action)} | {_help(parser, action)} |"
        for action in parser._actions
        if action.help is not argparse.SUPPRESS and action.dest not in ("help", "store")
    ]
    if rows:
        parts.append("\n".join(["| argument | |", "| --- | --- |", *rows]))
    if parser.epilog:
        parts.append(_block(parser.epilog))
    return "\n\n".join(parts) + "\n"


def _option(action: argparse.Action) -> str:
    value = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper())
    takes = f" {value}" if action.nargs != 0 else ""
    names = [f"{name}{takes}" for name in action.option_strings] or [str(value)]
    return ", ".join(f"`{name}`" for name in names).replace("|", "\\|")


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = parser._get_formatter()._expand_help(action) if action.help else ""
    if action.default not in (None, False, [], argparse.SUPPRESS) and "default" not in text:
        text += f" (default: {action.default})"
    return text.strip().replace("|", "\\|")


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _block(text: str) -> str:
    return f"```text\n{text.strip()}\n```"
