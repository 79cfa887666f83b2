"""Guess how videos are grouped where nothing says so."""

from __future__ import annotations

import re

from kdtune.clips.layout.lists import named_group
from kdtune.clips.layout.names import fold
from kdtune.clips.layout.resolve import without_suffix
from kdtune.clips.layout.rows import Row

#: A number at the end of a name, with what separates it: "_000010", " (2)", "-3".
PART_NUMBER = re.compile(r"[-_. (]+[0-9]+\)?$")
#: Words that the number of a cut may follow.
PART_WORD = re.compile(r"[-_. ]*(?:clip|part|scene|shot|cut|seg(?:ment)?)$", re.IGNORECASE)


def group_guesses(rows: list[Row]) -> list[str]:
    """Return how videos are grouped without a groups.csv, as messages."""
    own = [row for row in rows if not named_group(row.video)]
    if not own:
        return []
    named = len(rows) - len(own)
    if named == 0:
        guesses = ["no groups.csv: each video is its own group"]
    else:
        guesses = [
            f"no groups.csv: {named:,} videos are grouped by the gNN in their names, every other is its own group"
        ]
    films: dict[tuple[str, str], list[str]] = {}
    for row in own:
        name = without_suffix(row.video.rpartition("/")[2])
        film = film_of(name)
        if film != name and fold(film) not in ("", "video", fold(row.action)):
            films.setdefault((row.action, film), []).append(name)
    cuts = [names for names in films.values() if len(names) > 1]
    if cuts:
        most = max(cuts, key=len)
        first, second = sorted(most)[:2]
        count = sum(map(len, cuts))
        what = f"names look like cuts of one film: {first}, {second} ({count:,} videos have such names)"
        guesses.append(f"{what}; a groups.csv keeps the cuts of a film together")
    return guesses


def film_of(name: str) -> str:
    """Return a video's name without the numbers of its cut; empty where it is only a number.

    film_01 and film_02 are "film", abc1_000010_000020 is "abc1", fi012 is "fi".
    """
    film, shorter = name, PART_NUMBER.sub("", name)
    while shorter != film:
        film, shorter = shorter, PART_NUMBER.sub("", shorter)
    if film == name:
        film = name.rstrip("0123456789")
    return PART_WORD.sub("", film)
