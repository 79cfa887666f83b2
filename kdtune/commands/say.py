"""Print for people: results to standard output, messages to standard error, wrapped at words on a terminal."""

from __future__ import annotations

import sys

from kdtune.messages import command_lines, line_width, wrapped


def say(text: str) -> None:
    """Print lines to standard error and flush them."""
    print(wrapped(text, line_width(sys.stderr)), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print lines to standard output and flush them."""
    print(wrapped(text, line_width(sys.stdout)), flush=True)


def show_command(label: str, command: str) -> None:
    """Print a shell command after its label, so that it can be pasted from a terminal of any width."""
    print(command_lines(label, command, line_width(sys.stdout)), flush=True)
