"""The search space: names of parameters, and the values that each may take."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from kdtune.config.fields import Section, broken, fields_of, section_in
from kdtune.config.inherit import RawConfig
from kdtune.config.schedules import WeightSchedule
from kdtune.config.trial import TrialConfig

Scalar = str | int | float | bool | None

#: Fields of a trial that do not hold a single value.
WHOLE_TRIALS = ("teacher", "start", "imported", "finetune")

#: Short name → path in the trial configuration, for sweep files and results.
SHORT_NAMES = {
    "student": "student.backbone",
    "teacher": "teacher",
    "lambda": "loss.lambda",
    "tau": "loss.tau",
    "alpha": "loss.alpha",
    "fraction": "data.fraction",
}


def flat_params(config: TrialConfig, teacher: object = None) -> dict[str, Scalar]:
    """Return a trial's main parameters, in one row for tables and MLflow.

    `teacher` is the teacher's name in the sweep; None stands for its backbone. lambda and tau are None where no teacher
    makes them matter.
    """
    named = teacher if teacher is not None or config.teacher is None else config.teacher.student.backbone
    return {
        "student": config.student.backbone,
        "teacher": str(named) if config.distils else "none",
        "lambda": _shown(config.loss.lambda_) if config.distils else None,
        "tau": _shown(config.loss.tau) if config.distils else None,
        "alpha": config.loss.alpha,
        "fraction": config.data.fraction,
    }


def _shown(value: float | WeightSchedule) -> float | str:
    return str(value) if isinstance(value, WeightSchedule) else value


def resolve(name: str) -> str:
    """Return the path that a short name stands for, or the name itself."""
    return SHORT_NAMES.get(name, name)


def column_name(name: str) -> str:
    """Return a searched parameter's name in tables and MLflow: its short name, if it has one."""
    return next((short for short, path in SHORT_NAMES.items() if path == resolve(name)), name)


def value_text(value: Scalar) -> str:
    """Format a parameter's value for people: four digits of a float, a dash for None."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def is_path(name: str) -> bool:
    """Return whether `name` (short or dotted) leads to a single value of the trial configuration."""
    parts = resolve(name).split(".")
    if parts == ["teacher"]:
        return True
    section: type[BaseModel] | None = TrialConfig
    for i, part in enumerate(parts):
        field = fields_of(section).get(part) if section is not None else None
        if field is None:
            return False
        section = _section(field.annotation)
        if i == len(parts) - 1:
            return part not in WHOLE_TRIALS and (section is None or issubclass(section, WeightSchedule))
    return False


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field holds, if any. Optional sections (`finetune` and its data) count."""
    found = section_in(annotation)
    return None if found is TrialConfig else found


def all_paths() -> list[str]:
    """Return all names that may be searched, blocked on or set, short names first."""
    return [*SHORT_NAMES, *_paths(TrialConfig)]


def section_keys(path: Sequence[str]) -> list[str]:
    """Return the keys of a trial's section at `path`, those of deeper sections with `.…`; empty for no section."""
    section: type[BaseModel] | None = TrialConfig
    for part in path:
        field = fields_of(section).get(part) if section is not None else None
        section = _section(field.annotation) if field is not None else None
    fields = {} if section is None else fields_of(section)
    below = {name: _section(field.annotation) for name, field in fields.items() if name not in ("start", "imported")}
    values = (part is None or issubclass(part, WeightSchedule) for part in below.values())
    return [name if is_value else f"{name}.…" for name, is_value in zip(below, values, strict=True)]


def _paths(section: type[BaseModel]) -> Iterator[str]:
    for name, field in fields_of(section).items():
        below = _section(field.annotation)
        if below is None or issubclass(below, WeightSchedule):
            yield from [name] if name not in WHOLE_TRIALS else []
        if below is not None:
            yield from (f"{name}.{path}" for path in _paths(below))


def split_path(path: str) -> list[str]:
    """Return the keys that a dotted path leads through.

    The keys of `search.space` and `search.blocks` are paths themselves: `search.space.optimizer.lr.log` leads through
    `search`, `space`, `optimizer.lr` and `log`.
    """
    parts = path.split(".")
    if len(parts) < 4 or parts[0] != "search" or parts[1] not in ("space", "blocks"):
        return parts
    name = parts[2:]
    inside = next((i for i, part in enumerate(name) if i > 0 and part in Parameter.model_fields), len(name))
    of_parameter = [".".join(name[inside + 1 :])] if name[inside + 1 :] else []
    return [*parts[:2], ".".join(name[:inside]), *name[inside : inside + 1], *of_parameter]


def set_path(raw: RawConfig, path: str, value: Any) -> None:
    """Put `value` at the dotted `path` in `raw`, creating sections on the way."""
    *sections, last = split_path(path)
    for section in sections:
        below = raw.get(section)
        raw[section] = below = below if isinstance(below, dict) else {}
        raw = below
    raw[last] = value


def _spell_out(value: Any) -> Any:
    return {"choice": value} if isinstance(value, list) else value


#: Optuna computes with the width of a range, which overflows near the largest float.
_Bound = Annotated[float, Field(ge=-1e100, le=1e100)]
#: Optuna handles whole numbers as floats, which are exact up to this bound.
_WholeBound = Annotated[int, Field(ge=-(2**53), le=2**53)]
Bounds = Annotated[tuple[_Bound, _Bound], Field(strict=False)]
#: Kinds of parameters. Each parameter has exactly one.
KINDS = ("choice", "range", "log", "int", "int_log")
#: Defined here because `int` is a field inside the class below.
WholeBounds = Annotated[tuple[_WholeBound, _WholeBound], Field(strict=False)]


class Parameter(Section):
    """One searched parameter: a choice `[a, b]`, a uniform `range`, a log-uniform range `log`, a range `int` of whole
    numbers, or a log-uniform range `int_log` of whole numbers."""

    choice: Annotated[list[Scalar], Field(min_length=1, max_length=1000)] | None = None
    """The values to choose from. `[a, b]` alone means the same."""
    range: Bounds | None = None
    """Smallest and largest number of a uniform range."""
    log: Bounds | None = None
    """Smallest and largest number of a log-uniform range."""
    int: WholeBounds | None = None
    """Smallest and largest whole number of a uniform range."""
    int_log: WholeBounds | None = None
    """Smallest and largest whole number of a log-uniform range."""
    when: dict[str, Scalar] | None = None
    """Condition under which the parameter exists: these parameters, which must come before it, have these values."""

    @model_validator(mode="after")
    def _one_kind(self) -> Parameter:
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise broken(f"give one of {', '.join(KINDS)}", kinds or "none of them", kind="kind")
        bounds = self.bounds
        if bounds is not None and not bounds[0] < bounds[1]:
            raise broken("`low < high` must hold", list(bounds))
        if self.is_log and bounds is not None and bounds[0] <= 0:
            raise broken("a log range must lie above 0", list(bounds))
        return self

    @property
    def bounds(self) -> Bounds | None:
        """Smallest and largest value; None for a choice."""
        return self.range or self.log or self.int or self.int_log

    @property
    def is_log(self) -> bool:
        """Whether the parameter is log-uniform."""
        return self.log is not None or self.int_log is not None

    @property
    def extremes(self) -> list[Scalar]:
        """Values whose validity implies that of all others: every choice, or both bounds."""
        return list(self.choice or self.bounds or ())

    def held(self, value: Scalar) -> Scalar:
        """Return `value` as the parameter holds it: a choice as listed, a number of a range as its type.

        Raises ValueError for a value that is not one of the parameter's.
        """
        if self.choice is not None:
            for choice in self.choice:
                if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                    return choice
            raise ValueError(value)
        assert self.bounds is not None
        whole = self.int is not None or self.int_log is not None
        if isinstance(value, bool) or not isinstance(value, builtins.int if whole else builtins.int | float):
            raise ValueError(value)
        if not self.bounds[0] <= value <= self.bounds[1]:
            raise ValueError(value)
        return value if whole else float(value)

    def active(self, values: Mapping[str, Any]) -> bool:
        """Return whether the parameter exists, given the `values` of earlier parameters."""
        return all(values.get(name) == value for name, value in (self.when or {}).items())


SpaceEntry = Annotated[Parameter, BeforeValidator(_spell_out, json_schema_input_type=Parameter | list[Scalar])]
