"""A parser whose help is grouped by what one wants to do, and whose refusals suggest what was meant."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from kdtune.errors import EXIT_OK, EXIT_USER_ERROR
from kdtune.messages import line_width, wrapped
from kdtune.near import did_you_mean
from kdtune.parse import printable
from kdtune.urls import redact

#: Width of the column of commands in a list of them.
NAMES = 12


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that suggests commands, options and values. Without a command it shows its help."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.groups: dict[str, list[tuple[str, str]]] = {}
        """Heading → (command, what it does), for a parser that has commands."""
        self.set_defaults(parser=self)

    def with_commands(self, dest: str) -> argparse._SubParsersAction[Parser]:
        """Let the parser take a command, which is stored as `dest`."""
        self.set_defaults(run=self._show)
        return self.add_subparsers(dest=dest, metavar="COMMAND")

    def _show(self, options: argparse.Namespace) -> int:
        print(self.format_help(), end="")
        return EXIT_OK

    # ---- help ----------------------------------------------------------------------------------------------------

    def format_help(self) -> str:
        if not self.groups:
            return super().format_help()
        width = self._get_formatter()._width
        lines = [f"usage: {self.prog} COMMAND ...", "", *textwrap.wrap(self.description or "", width)]
        for heading, commands in self.groups.items():
            lines += ["", f"{heading}:"]
            for name, does in commands:
                lines += textwrap.wrap(
                    does, width, initial_indent=f"  {name:{NAMES}}", subsequent_indent=" " * (NAMES + 2)
                )
        return "\n".join([*lines, "", *(self.epilog or "").splitlines(), ""])

    # ---- refusals ------------------------------------------------------------------------------------------------

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:  # type: ignore[override]
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            options.parser.unknown(rest)
        return options

    def unknown(self, rest: Sequence[str]) -> NoReturn:
        """Exit with the arguments that this parser does not know, and what may have been meant."""
        known = [option for action in self._actions for option in action.option_strings]
        said = []
        for text in rest:
            name = text.partition("=")[0]
            if text.startswith("-"):
                said.append(f"unknown option {printable(name)}{did_you_mean(name, known)}")
            else:
                said.append(f"one argument too many: {printable(text)}")
        self.error("; ".join(said))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        near = did_you_mean(str(value), known)
        if isinstance(action, argparse._SubParsersAction):
            self.error(f"{printable(str(value))!r} is not a command{near} (allowed: {', '.join(known)})")
        raise argparse.ArgumentError(action, f"unknown value, got {value!r}{near} (allowed: {', '.join(known)})")

    def error(self, message: str) -> NoReturn:
        """Exit with `message`, redacted: it may quote a URL with a password."""
        said = f"{self.prog}: {redact(message)}\n`{self.prog} --help` shows how to call it"
        self.exit(EXIT_USER_ERROR, f"{wrapped(said, line_width(sys.stderr))}\n")


#: A function that runs a command and returns its exit code.
Run = Callable[[argparse.Namespace], int]
