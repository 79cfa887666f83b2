"""A sweep's record (sweep.json): what is known of a sweep before its first event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from kdtune.config.space import column_name
from kdtune.config.sweep import SweepConfig
from kdtune.errors import Problem, StoreError
from kdtune.history.events import Asked, parsed
from kdtune.history.metric import MetricSpec
from kdtune.names import stays_below
from kdtune.parse import JsonObject, first_line
from kdtune.store import Store


@dataclass(frozen=True)
class ModelsWanted:
    """What of the sweep becomes MLflow models."""

    models: Literal["none", "best", "all"] = "best"
    register: str | None = None
    """A name in MLflow's model registry."""


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """What a driver writes of a sweep before its first event."""

    name: str
    question: str = ""
    experiment: str = ""
    """MLflow's."""
    ledger: str
    """The name of the ledger's file, beside the record."""
    blocks: Mapping[str, int]
    """Label → how many candidates the block will have, asked or not."""
    stages: Mapping[str, int]
    """Name → epoch, in order; `finetune` counts fine-tuning's epochs on."""
    objectives: tuple[MetricSpec, ...]
    params: tuple[str, ...] = ()
    """Blocked on and searched, in the sweep file's order."""
    epochs: int
    """Of a trial of the sweep file, fine-tuning excluded."""
    refit: bool = False
    tracking: ModelsWanted = field(default_factory=ModelsWanted)
    commit: Mapping[str, str] = field(default_factory=dict)
    """MLflow's tags of the code that the sweep was run with."""
    text: str = ""
    """The sweep file."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The sweep file with its --set, as JSON."""

    def __post_init__(self) -> None:
        if not self.objectives or not self.stages:
            raise ValueError("a sweep has one objective and one stage at least")
        if not stays_below(self.ledger):
            raise ValueError("ledger must name a file beside the record")

    @classmethod
    def of(cls, sweep: SweepConfig, ledger: str, text: str, commit: Mapping[str, str]) -> SweepRecord:
        """Return the record of `sweep`, whose file reads `text`."""
        reduce = sweep.trial.stage.reduce
        return cls(
            name=sweep.name,
            question=sweep.question,
            experiment=sweep.experiment,
            ledger=ledger,
            blocks={block.label: sweep.candidates(block) for block in sweep.blocks()},
            stages=sweep.trial.milestones,
            objectives=tuple(MetricSpec.of(objective, reduce) for objective in sweep.objectives),
            params=tuple(dict.fromkeys(map(column_name, [*sweep.search.blocks, *sweep.search.space]))),
            epochs=sweep.trial.epochs,
            refit=sweep.refit,
            tracking=ModelsWanted(sweep.tracking.models, sweep.tracking.register_as),
            commit=commit,
            text=text,
            config=sweep.model_dump(mode="json", by_alias=True, exclude_unset=True),
        )

    @property
    def metric(self) -> MetricSpec:
        """What gains are said of: the first objective that is no cost, or the first."""
        return next((metric for metric in self.objectives if not metric.cost), self.objectives[0])

    @property
    def tuning_epochs(self) -> int:
        """Epochs of the fine-tuning that follows a trial; 0 where none does."""
        return max(0, max(self.stages.values()) - self.epochs)

    def wants(self, asked: Asked) -> bool:
        """Return whether the sweep still has this group.

        A ledger also knows blocks and candidates of a run that had more of them, and refits of one that had some.
        """
        if asked.block is None:
            return True
        if asked.kind == "refit" and not self.refit:
            return False
        numbered = asked.role != "candidate" or (asked.number or 0) < self.blocks.get(asked.block, 0)
        return asked.block in self.blocks and numbered

    def sweep(self) -> SweepConfig:
        """Return the sweep as it was run, --set included. Raises StoreError where this version refuses it."""
        try:
            return SweepConfig.model_validate(self.config)
        except ValidationError as error:  # an earlier version allowed it
            what = f"was run with what this version refuses: {first_line(error)}"
            raise StoreError(
                [Problem(f"sweep {self.name}", what, "run the sweep again with a file that it accepts")]
            ) from error

    def row(self) -> JsonObject:
        """Return the record as JSON."""
        return asdict(self)


def read_record(store: Store, name: str) -> SweepRecord:
    """Return a sweep's record. Raises StoreError for an unknown name, DamageError for a record that cannot be used."""
    files = store.sweep(name).fetch()
    record = store.sweep_record(name)
    return parsed(SweepRecord, record, files.sweep)
