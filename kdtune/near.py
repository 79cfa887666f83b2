"""Suggest known names that are similar to an unknown one: "did you mean …", and a short list of what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

#: Names from this length on are compared with no other, because that takes quadratic time.
LONG_NAME = 100
#: Longest list of allowed names that a message shows whole, and names shown of a longer one.
WHOLE, NEAREST = 20, 8
#: Similarity, from 0 to 1, from which a name is suggested.
SIMILAR = 0.5


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that `name` most probably stands for; None where no one is similar.

    A name that only lacks its section counts as similar: `backbone` stands for `student.backbone`.
    """
    if len(name) >= LONG_NAME or name in known:
        return None
    if close := difflib.get_close_matches(name.lower(), known, 1, SIMILAR):
        return close[0]
    lasts = {each.rpartition(".")[2]: each for each in reversed(known)}
    close = difflib.get_close_matches(name.rpartition(".")[2].lower(), list(lasts), 1, SIMILAR)
    return lasts[close[0]] if close else None


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return `, did you mean NAME?`, to append to a message; empty where no name is similar."""
    found = nearest(name, known)
    return f", did you mean {found}?" if found is not None else ""


def short_list(name: str, known: Sequence[str]) -> str:
    """Return the known names, separated by commas. Of a long list only the ones most similar to `name`."""
    if len(known) <= WHOLE:
        return ", ".join(known)
    shown = difflib.get_close_matches(name[:LONG_NAME], known, NEAREST, 0.0)
    return f"{', '.join(shown)} and {len(known) - len(shown)} others"
