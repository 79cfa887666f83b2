"""Building blocks of the configuration: kinds of numbers, and the base class of the sections."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

# The upper bounds are far beyond any use: they keep a typing error from overflowing inside a library.
Positive = Annotated[float, Field(gt=0, le=1e30)]
NotNegative = Annotated[float, Field(ge=0, le=1e30)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Side = Annotated[int, Field(ge=1, le=8192)]
"""Side of a frame, in pixels."""
Sigma = Annotated[float, Field(gt=0, le=8192)]
"""σ of a blur, in pixels."""
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
"""Seed in the range that torch accepts."""


class Section(BaseModel):
    """Base of all sections: frozen, keyword-only, no unknown keys. A field's docstring is its schema description."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


def fields_of(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return key in a file → field."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section inside an annotation such as dict[str, Section] or Section | None, if any."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(section_in, get_args(annotation))), None)


def broken(rule: str, got: object, kind: str = "rule") -> PydanticCustomError:
    """Return the error of a value that breaks a rule, for validators to raise."""
    return PydanticCustomError(kind, f"{rule}, but got {got}")
