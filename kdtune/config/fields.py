"""Building blocks of the configuration: kinds of numbers, and the base class of the sections."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

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
