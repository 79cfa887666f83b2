"""The configuration reference: every section and field of a sweep file, from the docstrings in kdtune/config."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from kdtune.config.fields import Section
from kdtune.config.schedules import TemperatureSchedule, WeightSchedule
from kdtune.config.search import ObjectiveConfig
from kdtune.config.space import SHORT_NAMES, Parameter, Scalar
from kdtune.config.sweep import SweepConfig, TeacherConfig, TeacherData
from kdtune.config.trial import TrialConfig

#: Names of the sections that a file does not hold under one path of their own.
TITLES: dict[type[Section], str] = {
    SweepConfig: "A sweep file",
    TrialConfig: "trial",
    TeacherConfig: "teachers.NAME",
    TeacherData: "teachers.NAME.data",
    Parameter: "search.space.NAME",
    ObjectiveConfig: "objective",
    WeightSchedule: "A scheduled weight",
    TemperatureSchedule: "A scheduled temperature",
}
#: Bounds this far out only guard against typing errors.
_FAR = 10_000
_WORDS = {str: "text", bool: "true or false", int: "whole number", float: "number", NoneType: "none"}


def page() -> str:
    """Return the generated part of the page as Markdown."""
    titles = dict(_titles())
    short = ", ".join(f"`{name}` (`{path}`)" for name, path in SHORT_NAMES.items() if name != path)
    parts = [f"Some paths have a short name: {short}.\n"]
    for section, title in titles.items():
        parent = next((base for base in section.__mro__[1:] if base in titles), None)
        fields = {name: field for name, field in section.model_fields.items() if name in section.__annotations__}
        text = _paragraphs(inspect.getdoc(section) or "")
        if parent is not None:
            text += f"\n\nAll other fields are those of [{titles[parent]}](#{_anchor(titles[parent])})."
        parts.append(f"## {title}\n\n{text}\n\n{_table(fields or dict(section.model_fields), titles)}")
    return "\n".join(parts)


def _titles() -> Iterator[tuple[type[Section], str]]:
    """Yield each section once, with the path at which a file holds it."""
    found: dict[type[Section], str] = {}

    def visit(section: type[Section], path: str) -> None:
        if section in found:
            return
        title = found[section] = TITLES.get(section, path)
        prefix = "" if section is SweepConfig else f"{title}."
        for name, field in section.model_fields.items():
            for below in _sections(field.annotation):
                visit(below, f"{prefix}{field.alias or name}")

    visit(SweepConfig, "")
    schedules = (WeightSchedule, TemperatureSchedule)
    yield from ((section, title) for section, title in found.items() if section not in schedules)
    yield from ((section, TITLES[section]) for section in schedules)


def _sections(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        if not isinstance(part, str | FieldInfo):
            yield from _sections(part)


def _table(fields: dict[str, FieldInfo], titles: dict[type[Section], str]) -> str:
    rows = ["| field | value | default | |", "| --- | --- | --- | --- |"]
    for name, field in fields.items():
        below = next(_sections(field.annotation), None)
        text = field.description or (inspect.getdoc(below) or "").partition("\n\n")[0] if below else field.description
        cells = (
            f"`{field.alias or name}`",
            _value(field, titles),
            _default(field),
            _linked(" ".join((text or "").split())),
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _linked(text: str) -> str:
    return re.sub(r"docs/(\w+)\.md", r"[\1](../\1.md)", text)


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None or isinstance(field.default, Section) or field.default in ({}, [], ""):
        return ""
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _value(field: FieldInfo, titles: dict[type[Section], str]) -> str:
    return _kind(field.annotation, list(field.metadata), titles)


def _kind(annotation: Any, limits: list[Any], titles: dict[type[Section], str]) -> str:
    """Return in words which values a field takes."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [part for info in arguments[1:] for part in (info.metadata if isinstance(info, FieldInfo) else [info])]
        return _kind(arguments[0], [*limits, *inner], titles)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        if set(arguments) == set(get_args(Scalar)):
            return "value"
        kinds = dict.fromkeys(_kind(part, limits, titles) for part in arguments if part is not NoneType)
        return (", " if all(kind.startswith("`") for kind in kinds) else " or ").join(kinds)
    if origin is tuple:
        return f"{len(arguments)} × {_kind(arguments[0], [], titles)}"
    if origin is list:
        return f"list of: {_kind(arguments[0], [], titles)}"
    if origin is dict:
        return f"name → {_kind(arguments[1], [], titles)}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return f"[section](#{_anchor(titles[annotation])})"
    return f"{_WORDS[annotation]}{_bounds(limits)}"


def _bounds(limits: list[Any]) -> str:
    words = []
    for limit in limits:
        match limit:
            case Ge(ge=value) if value > -_FAR:
                words.append(f"≥ {_number(value)}")
            case Gt(gt=value):
                words.append(f"> {_number(value)}")
            case Le(le=value) if value < _FAR:
                words.append(f"≤ {_number(value)}")
            case Lt(lt=value):
                words.append(f"< {_number(value)}")
            case MultipleOf(multiple_of=value):
                words.append(f"a multiple of {value}")
    return f" {', '.join(words)}" if words else ""


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _anchor(title: str) -> str:
    return "".join(letter for letter in title.lower().replace(" ", "-") if letter.isalnum() or letter in "-_")


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
