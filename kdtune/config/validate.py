"""Turn pydantic's errors into problems: place in the file, value got, values allowed."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kdtune.config.inherit import RawConfig
from kdtune.config.reader import Path_, dotted
from kdtune.config.schedules import SCHEDULE_TAGS
from kdtune.config.search import OBJECTIVE_TAGS
from kdtune.errors import Problem
from kdtune.parse import printable

Model = TypeVar("Model", bound=BaseModel)

#: Names from this length on are not compared with known ones, because that takes quadratic time.
LONG_NAME = 100
#: Maximum characters of a value that a message repeats.
LONG_VALUE = 200


def validate(model: type[Model], raw: RawConfig) -> tuple[Model | None, list[Problem]]:
    """Return the model, or None, and all problems.

    Wrong values are left out and the rest is validated again, so that rules across fields are checked, too.
    """
    problems: dict[Problem, None] = {}
    rest = copy.deepcopy(raw)
    while True:
        try:
            return model.model_validate(rest), list(problems)
        except ValidationError as error:
            found = error.errors()
            named = [(e["type"], problem_in(e, model)) for e in found]
            fresh = [(kind, p) for kind, p in named if p not in problems]
            # A parameter that lacks values because they were left out as wrong is not another problem.
            reported = {p.where.rpartition(".")[0] for p in problems}
            problems |= dict.fromkeys(p for kind, p in fresh if kind != "kind" or p.where not in reported)
            dropped = [_drop(rest, where) for e in found if (where := _unfit(e)) is not None]
            if not fresh or not any(dropped):
                return None, list(problems)


def _unfit(error: ErrorDetails) -> Path_ | None:
    """Return the path of the value to leave out; None where a key is missing.

    A schedule is left out as a whole, since its parts have no defaults.
    """
    loc = error["loc"]
    cut = next((i for i, part in enumerate(loc) if part in SCHEDULE_TAGS), None)
    if cut is not None:
        return loc[:cut]
    return None if error["type"] == "missing" else _in_file(loc)


def _in_file(loc: Path_) -> Path_:
    """Return the path without pydantic's tags."""
    tags = OBJECTIVE_TAGS if loc[:1] == ("objective",) else SCHEDULE_TAGS
    return tuple(part for part in loc if part not in tags)


def _drop(raw: Any, loc: Path_) -> bool:
    """Remove the value at `loc`, or its nearest parent where pydantic's path names a rule. Return whether it did."""
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
    """Return a value as messages show it, shortened where it is long."""
    text = repr(value)
    return text if len(text) <= LONG_VALUE else f"{text[: LONG_VALUE - 1]}…"


def _allowed_keys(model: Any, loc: Path_) -> list[str]:
    """Return the keys of the section at `loc`, following pydantic's fields through optional and dictionary types."""
    for part in loc:
        if isinstance(model, type) and issubclass(model, BaseModel):
            by_key = {field.alias or name: field for name, field in model.model_fields.items()}
            model = by_key[str(part)].annotation if str(part) in by_key else model
        else:
            model = _section_in(model)
    section = _section_in(model)
    return [field.alias or name for name, field in section.model_fields.items()] if section is not None else []


def _section_in(annotation: Any) -> Any:
    """Return the section inside an annotation such as dict[str, Section] or Section | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _section_in(argument)
        if found is not None:
            return found
    return None


def unknown_key(where: str, name: str, allowed: Sequence[str]) -> Problem:
    """Return the problem of an unknown key, with the most similar known key."""
    close = difflib.get_close_matches(name, allowed, 1, 0.5) if len(name) < LONG_NAME else []
    return Problem(printable(where), f"unknown key{f', did you mean {close[0]}?' if close else ''}", ", ".join(allowed))
