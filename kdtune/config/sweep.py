"""The configuration of a sweep: its trials' shared settings, the search space, the blocks and the search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from kdtune.config.constraints import ConstraintConfig
from kdtune.config.fields import Section
from kdtune.config.inherit import RawConfig, inherit
from kdtune.config.key import NOT_HASHED, TRAINER_SEMANTICS, digest
from kdtune.config.points import fitted
from kdtune.config.search import (
    ObjectiveConfig,
    Objectives,
    PruneConfig,
    ResourceConfig,
    SearchConfig,
    StopConfig,
    SweepName,
    TrackingConfig,
)
from kdtune.config.sections import DataConfig
from kdtune.config.space import Scalar, SpaceEntry, resolve, set_path
from kdtune.config.trial import TrialConfig

#: Maximum number of blocks, and of candidates in all blocks. A larger search is a mistake, and takes minutes to check.
MOST_BLOCKS, MOST_CANDIDATES = 500, 100_000
#: Maximum number of trials known in advance (controls and grid points). `plan` looks each of them up.
MOST_KNOWN = 10_000


class TeacherData(DataConfig):
    """Data of a sweep's teacher."""

    fraction: Annotated[float, Field(gt=0, le=1)] | Literal["match"] = 1.0  # type: ignore[assignment]
    """Share of the training videos that the teacher is trained on, or `match` for its student's share. Default: the
    fraction of `trial`."""


class TeacherConfig(TrialConfig):
    """A trial whose own teacher may be named (another of the sweep's), and whose data fraction may be `match`."""

    data: TeacherData = TeacherData()
    teacher: TrialConfig | str | None = None  # type: ignore[assignment]
    """`none`, another teacher's name (a chain), or a trial."""

    def _teacher_fits(self, teacher: TrialConfig | str) -> None:
        if not isinstance(teacher, str):
            super()._teacher_fits(teacher)


@dataclass(frozen=True)
class Block:
    """One combination of block values. Candidates compete within a block, never between blocks."""

    index: int
    values: Mapping[str, Scalar]

    @property
    def label(self) -> str:
        """The block's values, as in `fraction=0.25 student=r3d`; `all` where there are none."""
        return values_label(self.values) or "all"


class SweepConfig(Section):
    """One YAML file: a question, a search space, blocks, controls."""

    name: SweepName
    """Name of the sweep in the store, in MLflow and for commands such as `results NAME`."""
    question: Annotated[str, Field(max_length=2000)] = ""
    """The research question in a sentence, for tables and MLflow."""
    trial: TrialConfig = TrialConfig()
    """Settings that all trials share. Fields left out have the papers' values."""
    teachers: dict[str, TeacherConfig] = {}
    """The teachers, by name. Each is a trial of its own, trained when first needed. Fields left out are taken from
    `trial`."""
    search: SearchConfig
    objective: Objectives = ObjectiveConfig()
    """One objective, or a list of them. With several, the results are a Pareto set, and pruning compares those
    that are known at a stage by non-dominated sorting."""
    constraints: Annotated[list[ConstraintConfig], Field(max_length=20)] = []
    """Bounds on costs that are known before training. A candidate that breaks one is not trained, and the sampler
    learns where they are kept. Controls are trained in any case."""
    refit: bool = False
    """Train the chosen candidates and the controls again on the whole training list, including the validation videos.
    Reported figures on the test list then come from these trainings."""
    prune: PruneConfig = PruneConfig()
    stop: StopConfig = StopConfig()
    resources: ResourceConfig = ResourceConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def experiment(self) -> str:
        return self.tracking.experiment or self.name

    @property
    def objectives(self) -> tuple[ObjectiveConfig, ...]:
        """All objectives. Stages show the first one; pruning compares it if it is the only one."""
        return (self.objective,) if isinstance(self.objective, ObjectiveConfig) else tuple(self.objective)

    def blocks(self) -> list[Block]:
        """Return all combinations of the block values, in the file's order, without those that `exclude` covers."""
        blocks = self.search.blocks
        combinations = [dict(zip(blocks, values, strict=True)) for values in itertools.product(*blocks.values())]
        kept = [values for values in combinations if not any(_covers(values, out) for out in self.search.exclude)]
        return [Block(i, values) for i, values in enumerate(kept)]

    def space(self, block: Block) -> dict[str, SpaceEntry]:
        """Return the search space of a block, without the choices that `exclude` rules out there."""
        space = dict(self.search.space)
        for out in self.search.exclude:
            rest = {name: value for name, value in out.items() if name not in block.values}
            if len(rest) == 1 and _covers(block.values, {k: v for k, v in out.items() if k not in rest}):
                ((name, value),) = rest.items()
                if name in space and space[name].choice is not None:
                    left = [choice for choice in space[name].choice or [] if choice != value]
                    space[name] = space[name].model_copy(update={"choice": left})
        return space

    @property
    def block_count(self) -> int:
        """Number of combinations of the block values, computed without making them."""
        return math.prod(len(values) for values in self.search.blocks.values())

    def first(self, block: Block) -> list[dict[str, Scalar]]:
        """Return the points that the block tries first, without those that `exclude` rules out there."""
        points = (fitted(self.space(block), block.values, point) for point in self.search.first)
        return [point for point in points if point is not None]

    def candidates(self, block: Block) -> int:
        """Return the number of candidates in the block. A grid is counted up to MOST_KNOWN + 1."""
        if self.search.sampler == "grid":
            return len(self.grid(block, MOST_KNOWN + 1))
        return self.search.candidates or 0

    def grid(self, block: Block, most: int | None = None) -> list[dict[str, Scalar]]:
        """Return the first points of a grid, up to `search.candidates` or `most`. The last parameter turns fastest."""
        ends = [end for end in (most, self.search.candidates) if end is not None]
        return list(itertools.islice(self._points(block), min(ends, default=None)))

    def _points(self, block: Block) -> Iterator[dict[str, Scalar]]:
        parameters = list(self.space(block).items())

        def below(point: dict[str, Scalar], depth: int) -> Iterator[dict[str, Scalar]]:
            if depth == len(parameters):
                yield point
                return
            name, parameter = parameters[depth]
            if parameter.active({**block.values, **point}):
                for value in parameter.choice or []:
                    yield from below({**point, name: value}, depth + 1)
            else:
                yield from below(point, depth + 1)

        return below({}, 0)

    def teacher(self, name: str, block: Block, values: Mapping[str, Scalar] | None = None) -> TrialConfig:
        """Return the trial of a teacher whose student is in `block` and has the searched `values`.

        The teacher has its student's data set and clips, but its own data fraction unless that is `match`.
        """
        raw, entry = self._shared(), self.teachers[name]
        for parameter, value in {**block.values, **(values or {})}.items():
            if self.follows(name, parameter):
                set_path(raw, resolve(parameter), value)
        own = entry.model_dump(by_alias=True, exclude_unset=True)
        if isinstance(entry.teacher, str):
            own["teacher"] = None if entry.teacher == "none" else self.teacher(entry.teacher, block, values)
        return TrialConfig.model_validate(inherit(raw, own))

    def follows(self, teacher: str, parameter: str) -> bool:
        """Return whether the teacher takes this parameter from its student: data, clips and target do.

        The data fraction does only where the teacher's is `match`.
        """
        path = resolve(parameter)
        if path == "data.fraction":
            return self.teachers[teacher].data.fraction == "match"
        return path.startswith(("data.", "clip.", "loss.target"))

    def chain(self, teacher: str) -> list[str]:
        """Return the teacher's name, its teacher's name, and so on. A checked file has no circles."""
        names = [teacher]
        while (above := self.teachers[names[-1]].teacher) in self.teachers:
            names.append(str(above))
        return names

    def build(self, block: Block, values: Mapping[str, Scalar], seed: int) -> TrialConfig:
        """Return the trial of a candidate or control of `block`. Raises ValidationError where values clash."""
        raw = self._shared()
        for name, value in {**block.values, **values}.items():
            if name == "teacher":
                raw["teacher"] = None if value in (None, "none") else self.teacher(str(value), block, values)
            else:
                set_path(raw, resolve(name), value)
        raw["seed"] = seed
        return TrialConfig.model_validate(raw)

    @property
    def ledger(self) -> str:
        """Digest of everything that determines the candidates, except their number, which may grow."""
        irrelevant = dict.fromkeys(("name", "question", "refit", "stop", "resources", "tracking"), True)
        form = self.model_dump(mode="json", by_alias=True, exclude=irrelevant)
        del form["search"]["candidates"]
        for config in (form["trial"], *form["teachers"].values()):
            for field in NOT_HASHED:
                del config["data"][field]
            for section in (config, config["finetune"] or {}):  # always `rest`, since a sweep refuses `all`
                if section.get("data") is not None:
                    section["data"].pop("train_on")
        return digest({**form, "semantics": TRAINER_SEMANTICS})

    def _shared(self) -> RawConfig:
        return self.trial.model_dump(by_alias=True, exclude_unset=True)


def values_label(values: Mapping[str, Scalar]) -> str:
    """Return each name's last part with its value, as in `fraction=0.25 student=r3d`."""
    return " ".join(f"{name.rsplit('.', 1)[-1]}={value}" for name, value in values.items())


def _covers(values: Mapping[str, Scalar], part: Mapping[str, Scalar]) -> bool:
    return all(name in values and values[name] == value for name, value in part.items())
