"""A sweep's record (sweep.json), which a driver writes before the first event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from kdtune.config.space import column_name
from kdtune.config.sweep import SweepConfig
from kdtune.errors import Problem, StoreError
from kdtune.history.events import Asked
from kdtune.history.metric import MetricSpec
from kdtune.history.racing import RaceRules
from kdtune.history.rows import parsed
from kdtune.names import stays_below
from kdtune.parse import JsonObject, first_line
from kdtune.store import StoreFiles


@dataclass(frozen=True)
class ModelsWanted:
    """Which students of the sweep become MLflow models."""

    models: Literal["none", "best", "all"] = "best"
    register: str | None = None
    """The name in MLflow's model registry."""


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """The description of a sweep: its file, blocks, stages and objectives."""

    name: str
    question: str = ""
    experiment: str = ""
    """The MLflow experiment."""
    ledger: str
    """The file name of the ledger, beside the record."""
    blocks: Mapping[str, int]
    """Label → number of candidates that the block will have, including those not yet asked for."""
    stages: Mapping[str, int]
    """Name → epoch, in order; `finetune` adds the epochs of fine-tuning to those of pre-training."""
    objectives: tuple[MetricSpec, ...]
    params: tuple[str, ...] = ()
    """Block and searched parameters, in the sweep file's order."""
    epochs: int
    """Epochs of a trial, without fine-tuning."""
    refit: bool = False
    race: RaceRules | None = None
    """The rules of the race between each block's candidates; None where all have the same seeds."""
    tracking: ModelsWanted = field(default_factory=ModelsWanted)
    commit: Mapping[str, str] = field(default_factory=dict)
    """MLflow tags of the code that ran the sweep."""
    text: str = ""
    """The text of the sweep file."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The sweep file with --set applied, as JSON."""

    def __post_init__(self) -> None:
        if not self.objectives or not self.stages:
            raise ValueError("a sweep must have at least one objective and one stage")
        if not stays_below(self.ledger):
            raise ValueError("ledger must name a file beside the record")

    @classmethod
    def of(cls, sweep: SweepConfig, ledger: str, text: str, commit: Mapping[str, str]) -> SweepRecord:
        """Return the record of `sweep`, whose file reads `text`."""
        reduce, race = sweep.trial.stage.reduce, sweep.search.race
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
            race=None if race is None else RaceRules(race.first, race.most, race.confidence, race.margin),
            tracking=ModelsWanted(sweep.tracking.models, sweep.tracking.register_as),
            commit=commit,
            text=text,
            config=sweep.model_dump(mode="json", by_alias=True, exclude_unset=True),
        )

    @property
    def metric(self) -> MetricSpec:
        """The metric of gains: the first objective that is not a cost, or the first objective."""
        return next((metric for metric in self.objectives if not metric.cost), self.objectives[0])

    @property
    def tuning_epochs(self) -> int:
        """Epochs of the fine-tuning that follows a trial; 0 without fine-tuning."""
        return max(0, max(self.stages.values()) - self.epochs)

    def wants(self, asked: Asked) -> bool:
        """Return whether the sweep still has this group.

        The ledger may also hold blocks, candidates and refits of an earlier run with a larger sweep file.
        """
        if asked.block is None:
            return True
        if (asked.kind == "refit" and not self.refit) or (asked.look is not None and self.race is None):
            return False
        numbered = asked.role != "candidate" or (asked.number or 0) < self.blocks.get(asked.block, 0)
        return asked.block in self.blocks and numbered

    def sweep(self) -> SweepConfig:
        """Return the sweep as it was run, with --set applied. Raises StoreError if this version refuses it."""
        try:
            return SweepConfig.model_validate(self.config)
        except ValidationError as error:  # an earlier version allowed it
            what = f"was run with settings that this version refuses: {first_line(error)}"
            raise StoreError(
                [Problem(f"sweep {self.name}", what, "run the sweep again with a file that it accepts")]
            ) from error

    def row(self) -> JsonObject:
        """Return the record as JSON."""
        return asdict(self)


def read_record(store: StoreFiles, name: str) -> SweepRecord:
    """Return a sweep's record. Raises StoreError for an unknown name, DamageError if the record cannot be used."""
    files = store.sweep(name).fetch()
    record = store.sweep_record(name)
    return parsed(SweepRecord, record, files.sweep)
