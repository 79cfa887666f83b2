"""A line of `doctor`'s output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    state: Literal["ok", "note", "problem"]
    text: str

    def __str__(self) -> str:
        return f"{self.state:<8} {self.name:<12} {self.text}"
