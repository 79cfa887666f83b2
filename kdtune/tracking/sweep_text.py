"""What MLflow is told of a sweep before any of its trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kdtune.tracking.ranking import Ranking, ranking


@dataclass(frozen=True)
class SweepText:
    """What the parent run says of its sweep."""

    name: str
    """By it the parent run is found again."""
    question: str = ""
    """Becomes the parent's description."""
    config_text: str = ""
    """The sweep file's text; becomes the parent's artifact sweep.yaml."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Of the parent."""
    ranking: Ranking | None = None
    """What the sweep's own view of MLflow's table shows; None for no view."""


def sweep_text(record: Mapping[str, Any]) -> SweepText:
    """Of a sweep, by its record (sweep.json)."""
    tags = record.get("commit") or {}
    return SweepText(record["name"], record["question"], record["text"], tags, ranking(record))
