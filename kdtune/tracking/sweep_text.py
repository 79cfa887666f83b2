"""The content of a sweep's parent run in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kdtune.history.record import SweepRecord
from kdtune.tracking.ranking import Ranking, ranking


@dataclass(frozen=True)
class SweepText:
    """The content of a sweep's parent run."""

    name: str
    """The sweep's name, which identifies the parent run."""
    question: str = ""
    """The run's description."""
    config_text: str = ""
    """The sweep file's text, for the artifact sweep.yaml."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Further tags of the run."""
    ranking: Ranking | None = None
    """Columns and order of the sweep's view of MLflow's table; None for no view."""


def sweep_text(record: SweepRecord) -> SweepText:
    """Return what MLflow is told of the sweep with this record."""
    return SweepText(record.name, record.question, record.text, record.commit, ranking(record))
