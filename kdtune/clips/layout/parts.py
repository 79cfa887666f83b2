"""The usual names of splits: of folders, of lists, and in a list's column."""

from __future__ import annotations

import re

#: The named group that matches is the part.
PART = re.compile(
    r"(?:(?P<train>train(?:ing)?)|(?P<val>val(?:id(?:at(?:ion|e))?)?)|(?P<test>test(?:ing)?))"
    r"(?:[-_ ]?(?:set|split|data|clips?|videos?))?",
    re.IGNORECASE | re.ASCII,
)
#: A word in a list's name, such as "trainlist" or "val".
WORD = re.compile(r"[a-z]+|[0-9]+")


def part_of(name: str) -> str:
    """Return "train", "val" or "test" for a usual name of that split, else ""."""
    found = PART.fullmatch(name)
    return (found.lastgroup or "") if found else ""


def part_of_list(stem: str) -> tuple[str, int | None]:
    """Return the part that a list's name says, and the number of the split after it, if any.

    ("train", 1) for trainlist01, ucf101_train_split_1_videos; ("", None) where it names no part, or several.
    """
    words = WORD.findall(stem.casefold())
    parts = [(part, place) for place, word in enumerate(words) if (part := part_of(word.removesuffix("list")))]
    if len({part for part, _ in parts}) != 1:
        return "", None
    part, place = parts[0]
    number = next((int(word) for word in words[place + 1 :] if word.isdecimal()), None)
    return part, number
