"""What `doctor` says: one line for each thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "note", "problem"]
    text: str

    def __str__(self) -> str:
        return f"{self.state:<8} {self.name:<12} {self.text}"
