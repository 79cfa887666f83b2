"""Turn pydantic's errors into problems: place in the file, value got, values allowed."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kdtune.config.fields import fields_of, section_in
from kdtune.config.inherit import RawConfig
from kdtune.config.reading.reader import Path_, dotted
from kdtune.config.schedules import SCHEDULE_TAGS
from kdtune.config.search import OBJECTIVE_TAGS
from kdtune.config.seeds import SEEDS_TAGS
from kdtune.config.space import SHORT_NAMES, all_paths, section_keys
from kdtune.errors import Problem
from kdtune.near import did_you_mean, nearest, short_list
from kdtune.parse import printable, shortened

Model = TypeVar("Model", bound=BaseModel)

#: Tags of scalars in a union → the type of error that says that the value is none.
_SCALARS = {"str": "string_type", "int": "int_type", "float": "float_type", "bool": "bool_type"}
#: Tags of other members of a union.
_UNION = re.compile(r"(?:literal|list|function-\w+|nullable|constrained)\[.*\]|constrained-\w+|TrialConfig")


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
            named = _named(found, model)
            fresh = [(kind, p) for kind, p in named if p not in problems]
            # A parameter that lacks values because they were left out as wrong is not another problem.
            reported = {p.where.rpartition(".")[0] for p in problems}
            problems |= dict.fromkeys(p for kind, p in fresh if kind != "kind" or p.where not in reported)
            unfit = dict.fromkeys(where for e in found if (where := _unfit(e)) is not None)
            dropped = [_drop(rest, where) for where in unfit]
            if not fresh or not any(dropped):
                return None, list(problems)


def problems_of(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[Problem]:
    """Return the problems of a model that could not be built, each place with `prefix` before it."""
    return [problem for _, problem in _named(error.errors(), model, prefix)]


def _unfit(error: ErrorDetails) -> Path_ | None:
    """Return the path of the value to leave out; None where a key is missing.

    A schedule is left out as a whole, since its parts have no defaults.
    """
    loc = error["loc"]
    cut = next((i for i, part in enumerate(loc) if part in SCHEDULE_TAGS), None)
    if cut is not None:
        return loc[:cut]
    return None if error["type"] == "missing" else _in_file(loc, error["type"])


def _in_file(loc: Path_, kind: str = "") -> Path_:
    """Return the path of an error without the tags that pydantic adds for the members of a union.

    `kind` is the type of the error: a last part such as `int` is a tag only where the error says that no int is there.
    """
    tags = OBJECTIVE_TAGS if loc[:1] == ("objective",) else SCHEDULE_TAGS
    tags = SEEDS_TAGS if loc[:2] == ("search", "seeds") else tags
    if loc and _SCALARS.get(str(loc[-1])) == kind:
        loc = loc[:-1]
    return tuple(part for part in loc if part not in tags and not _UNION.fullmatch(str(part)))


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


def _named(errors: Sequence[ErrorDetails], model: type[BaseModel], prefix: str = "") -> list[tuple[str, Problem]]:
    """Return (pydantic's type of error, problem) of all errors. Those of a union's members make one problem."""
    places: dict[Path_, list[ErrorDetails]] = {}
    for error in errors:
        places.setdefault(_in_file(error["loc"], error["type"]), []).append(error)
    named = []
    for loc, members in places.items():
        if len(members) > 1 and isinstance(members[0]["input"], Mapping):
            # A mapping is meant as the member that is a section: the others say only that it is none of theirs.
            members = [error for error in members if error["type"] not in _SCALARS.values()] or members
        named += [(members[0]["type"], _problem(members, loc, model, prefix))]
    return named


def _problem(members: Sequence[ErrorDetails], loc: Path_, model: type[BaseModel], prefix: str) -> Problem:
    error, where = members[0], prefix + dotted(loc) if loc else prefix.strip() or "the file"
    if error["type"] == "extra_forbidden":
        return unknown_key(where, str(loc[-1]), _allowed_keys(model, loc[:-1]))
    if error["type"] == "missing":
        return Problem(where, "is missing")
    got = error["input"]
    if all(member["type"] == "literal_error" for member in members):
        allowed = [value for member in members for value in _literals(member)]
        near = did_you_mean(got, allowed) if isinstance(got, str) else ""
        return Problem(where, f"unknown value, got {shortened(got)}{near}", short_list(str(got), allowed))
    if {member["type"] for member in members} >= set(_SCALARS.values()):
        return Problem(where, f"should be one value (text, a number, true or false), got {shortened(got)}")
    rules = [_rule(member) for member in members]
    same = [rule.removeprefix("should be ") for rule in rules[1:]]
    what = " or ".join(dict.fromkeys([rules[0], *same]))
    shown = "" if isinstance(got, Mapping | BaseModel) or "but got" in what else f", got {shortened(got)}"
    return Problem(where, f"{what}{shown}")


def _rule(error: ErrorDetails) -> str:
    """Return what an error asks for, in the words of a file."""
    if error["type"] in ("model_type", "model_attributes_type"):
        return "should be a section with keys of its own"
    if error["type"] == "literal_error":
        return f"should be {' or '.join(_literals(error))}"
    return error["msg"].removeprefix("Input ").removeprefix("Value error, ")


def _literals(error: ErrorDetails) -> list[str]:
    """Return the values that a `literal_error` allows, as a file holds them."""
    return [value.strip("'") for value in re.split(", | or ", error["ctx"]["expected"])]


def _allowed_keys(model: Any, loc: Path_) -> list[str]:
    """Return the keys of the section at `loc`, following pydantic's fields through unions, lists and dictionaries."""
    for part in loc:
        section = section_in(model)
        if isinstance(part, int) or get_origin(model) is dict:
            model = section
        elif section is not None and (field := fields_of(section).get(str(part))) is not None:
            model = field.annotation
    section = section_in(model)
    return [] if section is None else list(fields_of(section))


def unknown_path(where: str, name: str, what: str, others: Sequence[str] = ()) -> Problem:
    """Return the problem of a name that leads to no value of a trial, nor to one of `others`.

    It names the most similar path, and the keys that the name's section has.
    """
    *sections, last = name.split(".")
    keys = section_keys(sections) if sections else []
    near = nearest(last, keys)
    found = ".".join((*sections, near)) if near else nearest(name, [*all_paths(), *others])
    allowed = keys or [*SHORT_NAMES, *section_keys([]), *others]
    if found is None:
        return Problem(printable(where), what, ", ".join(allowed))
    return Problem(printable(where), f"{what}, did you mean {found}?", short_list(name, allowed))


def unknown_key(where: str, name: str, allowed: Sequence[str]) -> Problem:
    """Return the problem of an unknown key, with the most similar known key."""
    return Problem(printable(where), f"unknown key{did_you_mean(name, allowed)}", short_list(name, allowed))
