"""Where commands speak to people: what they print for programs goes to standard output alone."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """A line on standard error, at once."""
    print(text, file=sys.stderr, flush=True)
