"""Print messages for people to standard error; standard output is for results."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Print a line to standard error and flush it."""
    print(text, file=sys.stderr, flush=True)
