"""What is searched: names of parameters, and the values that each may take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from kdtune.config.sections import Section
from kdtune.config.trial import TrialConfig

Scalar = str | int | float | bool | None

#: Short names, in sweep files and in results, for paths of the trial configuration.
SHORT_NAMES = {
    "student": "student.backbone",
    "teacher": "teacher",
    "lambda": "loss.lambda",
    "tau": "loss.tau",
    "alpha": "loss.alpha",
    "fraction": "data.fraction",
}


def resolve(name: str) -> str:
    """The path that a short name stands for, or the name itself."""
    return SHORT_NAMES.get(name, name)


def is_path(name: str) -> bool:
    """Does `name` (short or dotted) lead to one value of the trial configuration?"""
    parts = resolve(name).split(".")
    if parts == ["teacher"]:
        return True
    section: Any = TrialConfig
    for i, part in enumerate(parts):
        field = _fields(section).get(part)
        if field is None:
            return False
        annotation = field.annotation
        is_section = isinstance(annotation, type) and issubclass(annotation, Section)
        if i == len(parts) - 1:
            return not is_section and part != "teacher"
        if not is_section:
            return False
        section = annotation
    return False


def _fields(section: type[Section]) -> dict[str, Any]:
    return {field.alias or name: field for name, field in section.model_fields.items()}


def all_paths() -> list[str]:
    """Every name that may be searched, blocked on or set: short names first."""
    paths = list(SHORT_NAMES)
    for name, field in _fields(TrialConfig).items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            paths += [f"{name}.{below}" for below in _fields(annotation)]
        elif name != "teacher":
            paths.append(name)
    return paths


def set_path(raw: dict[str, Any], path: str, value: Any) -> None:
    """Put `value` at the place that the dotted `path` leads to; sections on the way are made."""
    *sections, last = path.split(".")
    for section in sections:
        below = raw.get(section)
        raw[section] = below = below if isinstance(below, dict) else {}
        raw = below
    raw[last] = value


def _spell_out(value: Any) -> Any:
    return {"choice": value} if isinstance(value, list) else value


Bounds = Annotated[tuple[float, float], Field(strict=False)]
#: Named here, for inside the class below `int` is a field.
WholeBounds = Annotated[tuple[int, int], Field(strict=False)]


class Parameter(Section):
    """One searched value: `[a, b]` is a choice; `range` is uniform, `log` uniform in the logarithm, `int` whole."""

    choice: Annotated[list[Scalar], Field(min_length=1)] | None = None
    range: Bounds | None = None
    log: Bounds | None = None
    int: WholeBounds | None = None
    when: dict[str, Scalar] | None = None
    """The parameter exists only where all of these parameters, named before it, have these values."""

    @model_validator(mode="after")
    def _one_kind(self) -> Parameter:
        kinds = [kind for kind in ("choice", "range", "log", "int") if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise PydanticCustomError("kind", f"give one of choice, range, log, int, but got {kinds or 'none of them'}")
        bounds = self.range or self.log or self.int
        if bounds is not None and not bounds[0] < bounds[1]:
            raise PydanticCustomError("bounds", f"`low < high` must hold, but got {list(bounds)}")
        if self.log is not None and self.log[0] <= 0:
            raise PydanticCustomError("bounds", f"a log range must lie above 0, but got {list(self.log)}")
        return self

    @property
    def extremes(self) -> list[Scalar]:
        """Values whose validity stands for all the others': every choice, or both bounds."""
        return list(self.choice or self.range or self.log or self.int or ())

    def active(self, values: Mapping[str, Any]) -> bool:
        """Does the parameter exist beside the `values` that stand already?"""
        return all(values.get(name) == value for name, value in (self.when or {}).items())


SpaceEntry = Annotated[Parameter, BeforeValidator(_spell_out, json_schema_input_type=Parameter | list[Scalar])]
