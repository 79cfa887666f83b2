"""What every section of a configuration is made of: the kinds of numbers, and the base of the sections."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Bounds from above are far beyond any use: they keep a slip from becoming an overflow inside a library.
Positive = Annotated[float, Field(gt=0, le=1e30)]
NotNegative = Annotated[float, Field(ge=0, le=1e30)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Side = Annotated[int, Field(ge=1, le=8192)]
"""Of a frame, in pixels."""
Sigma = Annotated[float, Field(gt=0, le=8192)]
"""Of a blur, in pixels."""
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
"""As torch takes it."""


class Section(BaseModel):
    """Frozen, keyword-only, no unknown keys; the docstring under a field is its documentation and its schema text."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )
