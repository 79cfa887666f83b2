"""Put pydantic's errors into problems with the place in the file, what was got and what is allowed."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kdtune.config.reader import Path_, dotted
from kdtune.config.schedules import SCHEDULE_TAGS
from kdtune.config.search import OBJECTIVE_TAGS
from kdtune.errors import Problem
from kdtune.parse import printable

Model = TypeVar("Model", bound=BaseModel)

#: Names of this many characters are not compared with the known ones, which takes time by their square.
LONG_NAME = 100
#: Longest value that a message repeats, in characters.
LONG_VALUE = 200


def validate(model: type[Model], raw: dict[str, Any]) -> tuple[Model | None, list[Problem]]:
    """The model and every problem: what is wrong is left out and the rest looked at again, for rules across fields."""
    problems: dict[Problem, None] = {}
    rest = copy.deepcopy(raw)
    while True:
        try:
            return model.model_validate(rest), list(problems)
        except ValidationError as error:
            found = error.errors()
            named = [(e["type"], problem_in(e, model)) for e in found]
            fresh = [(kind, p) for kind, p in named if p not in problems]
            # A parameter without values, because they were left out as wrong, is no second problem.
            told = {p.where.rpartition(".")[0] for p in problems}
            problems |= dict.fromkeys(p for kind, p in fresh if kind != "kind" or p.where not in told)
            dropped = [_drop(rest, where) for e in found if (where := _unfit(e)) is not None]
            if not fresh or not any(dropped):
                return None, list(problems)


def _unfit(error: ErrorDetails) -> Path_ | None:
    """The path of the value to leave out: a schedule as a whole, for none of its parts has a default. None where a key
    is missing."""
    loc = error["loc"]
    cut = next((i for i, part in enumerate(loc) if part in SCHEDULE_TAGS), None)
    if cut is not None:
        return loc[:cut]
    return None if error["type"] == "missing" else _in_file(loc)


def _in_file(loc: Path_) -> Path_:
    """The path without the names of pydantic's own alternatives."""
    tags = OBJECTIVE_TAGS if loc[:1] == ("objective",) else SCHEDULE_TAGS
    return tuple(part for part in loc if part not in tags)


def _drop(raw: Any, loc: Path_) -> bool:
    """Take away the value at `loc`; where pydantic's path names a rule rather than a key, its nearest parent."""
    holders = [raw]
    for part in loc:
        inside = holders[-1]
        there = isinstance(inside, dict) and part in inside
        if not there and not (isinstance(inside, list) and isinstance(part, int) and part < len(inside)):
            break
        holders.append(inside[part])
    depth = len(holders) - 2
    while depth >= 0 and not isinstance(holders[depth], dict):
        depth -= 1
    if depth < 0:
        return False
    del holders[depth][loc[depth]]
    return True


def problem_in(error: ErrorDetails, model: type[BaseModel], prefix: str = "") -> Problem:
    loc = _in_file(error["loc"])
    where = prefix + (dotted(loc) or "the file")
    if error["type"] == "extra_forbidden":
        return unknown_key(where, str(loc[-1]), _allowed_keys(model, loc[:-1]))
    if error["type"] == "missing":
        return Problem(where, "is missing")
    got = error["input"]
    shown = "" if isinstance(got, Mapping | BaseModel) or "but got" in error["msg"] else f", got {shortened(got)}"
    message = error["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return Problem(where, f"{message}{shown}")


def shortened(value: object) -> str:
    """Return a value as messages show it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= LONG_VALUE else f"{text[: LONG_VALUE - 1]}…"


def _allowed_keys(model: Any, loc: Path_) -> list[str]:
    """The keys of the section at `loc`, following pydantic's fields through optional and dictionary types."""
    for part in loc:
        if isinstance(model, type) and issubclass(model, BaseModel):
            by_key = {field.alias or name: field for name, field in model.model_fields.items()}
            model = by_key[str(part)].annotation if str(part) in by_key else model
        else:
            model = _section_in(model)
    section = _section_in(model)
    return [field.alias or name for name, field in section.model_fields.items()] if section is not None else []


def _section_in(annotation: Any) -> Any:
    """The configuration section inside an annotation such as dict[str, Section] or Section | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _section_in(argument)
        if found is not None:
            return found
    return None


def unknown_key(where: str, name: str, allowed: Sequence[str]) -> Problem:
    """An unknown key, with the one that was probably meant."""
    close = difflib.get_close_matches(name, allowed, 1, 0.5) if len(name) < LONG_NAME else []
    return Problem(printable(where), f"unknown key{f', did you mean {close[0]}?' if close else ''}", ", ".join(allowed))
