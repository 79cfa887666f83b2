"""A sweep file: what its trials share, what is searched, what is compared across, and how the search goes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from kdtune.config.fields import Section
from kdtune.config.inherit import inherit
from kdtune.config.key import NOT_HASHED, TRAINER_SEMANTICS, digest
from kdtune.config.search import (
    ObjectiveConfig,
    Objectives,
    PruneConfig,
    ResourceConfig,
    SearchConfig,
    StopConfig,
    TrackingConfig,
)
from kdtune.config.sections import DataConfig
from kdtune.config.space import Scalar, SpaceEntry, resolve, set_path
from kdtune.config.trial import TrialConfig
from kdtune.names import LONGEST_NAME, NAME_PATTERN

#: Most blocks of a sweep, and most candidates in all of them. A larger search is a slip, and takes minutes to check.
MOST_BLOCKS, MOST_CANDIDATES = 500, 100_000
#: Most trials that are known before the first has ended: controls and the points of a grid. `plan` looks for each.
MOST_KNOWN = 10_000


class TeacherData(DataConfig):
    """The data of a sweep's teacher."""

    fraction: Annotated[float, Field(gt=0, le=1)] | Literal["match"] = 1.0  # type: ignore[assignment]
    """A value, or `match`: each student's teacher has seen as much as the student. Default: that of `trial`."""


class TeacherConfig(TrialConfig):
    """A trial whose own teacher may be another of the sweep's, by name, and whose data fraction may be `match`."""

    data: TeacherData = TeacherData()
    teacher: TrialConfig | str | None = None  # type: ignore[assignment]
    """`none`, another teacher's name (a chain), or a trial."""

    def _teacher_fits(self, teacher: TrialConfig | str) -> None:
        if not isinstance(teacher, str):
            super()._teacher_fits(teacher)


@dataclass(frozen=True)
class Block:
    """One combination of the values that are compared across, never against."""

    index: int
    values: Mapping[str, Scalar]

    @property
    def label(self) -> str:
        """As in `fraction=0.25 student=r3d`; `all` where nothing is blocked on."""
        return values_label(self.values) or "all"


class SweepConfig(Section):
    """One YAML file: a question, a search space, blocks, controls."""

    name: Annotated[str, Field(max_length=LONGEST_NAME, pattern=NAME_PATTERN)]
    question: Annotated[str, Field(max_length=2000)] = ""
    """In a sentence, for tables and for MLflow."""
    trial: TrialConfig = TrialConfig()
    """What all trials share; what is left out has the paper's value."""
    teachers: dict[str, TeacherConfig] = {}
    """Each is a trial of its own: what it leaves out, it takes from `trial`. Trained when first needed."""
    search: SearchConfig
    objective: Objectives = ObjectiveConfig()
    """One number, or a list of them: then the results are a Pareto set, and nothing is pruned."""
    refit: bool = False
    """Train what the search has chosen, and the controls, again on the whole training list: validation videos included.
    What is reported of the test list is then of these trainings."""
    prune: PruneConfig = PruneConfig()
    stop: StopConfig = StopConfig()
    resources: ResourceConfig = ResourceConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def experiment(self) -> str:
        return self.tracking.experiment or self.name

    @property
    def objectives(self) -> tuple[ObjectiveConfig, ...]:
        """All of them. The first is what stages show, and what pruning compares where it is the only one."""
        return (self.objective,) if isinstance(self.objective, ObjectiveConfig) else tuple(self.objective)

    def blocks(self) -> list[Block]:
        """Every combination of the block values, in the file's order, without those that are excluded as a whole."""
        blocks = self.search.blocks
        combinations = [dict(zip(blocks, values, strict=True)) for values in itertools.product(*blocks.values())]
        kept = [values for values in combinations if not any(_covers(values, out) for out in self.search.exclude)]
        return [Block(i, values) for i, values in enumerate(kept)]

    def space(self, block: Block) -> dict[str, SpaceEntry]:
        """The search space of a block: choices that `exclude` rules out there are gone."""
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
        """How many combinations the block values have, before any is made."""
        return math.prod(len(values) for values in self.search.blocks.values())

    def candidates(self, block: Block) -> int:
        """How many candidates the block has; of a grid no more are counted than MOST_KNOWN + 1."""
        if self.search.sampler == "grid":
            return len(self.grid(block, MOST_KNOWN + 1))
        return self.search.candidates or 0

    def grid(self, block: Block, most: int | None = None) -> list[dict[str, Scalar]]:
        """The first `candidates` points of a space of choices, or `most`; the last parameter turns fastest."""
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
        """A teacher's trial for a student of `block` with the searched `values`.

        It follows the student's data set and clips, but has its own data fraction, unless that is `match`.
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
        """Does the teacher take this value from its student? Data, clips and target; the fraction where it matches."""
        path = resolve(parameter)
        if path == "data.fraction":
            return self.teachers[teacher].data.fraction == "match"
        return path.startswith(("data.", "clip.", "loss.target"))

    def chain(self, teacher: str) -> list[str]:
        """The teacher's name, that of its teacher, and so on. Circles have been refused with the file."""
        names = [teacher]
        while (above := self.teachers[names[-1]].teacher) in self.teachers:
            names.append(str(above))
        return names

    def build(self, block: Block, values: Mapping[str, Scalar], seed: int) -> TrialConfig:
        """The trial of a candidate (or control) of `block`. Raises pydantic's ValidationError for values that clash."""
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
        """Digest of everything that decides which candidates are asked; how many there are does not: it may grow."""
        unasked = dict.fromkeys(("name", "question", "refit", "stop", "resources", "tracking"), True)
        form = self.model_dump(mode="json", by_alias=True, exclude=unasked)
        del form["search"]["candidates"]
        for config in (form["trial"], *form["teachers"].values()):
            for field in NOT_HASHED:
                del config["data"][field]
            for section in (config, config["finetune"] or {}):  # `rest` everywhere, for a sweep refuses `all`
                if section.get("data") is not None:
                    section["data"].pop("train_on")
        return digest({**form, "semantics": TRAINER_SEMANTICS})

    def _shared(self) -> dict[str, Any]:
        return self.trial.model_dump(by_alias=True, exclude_unset=True)


def values_label(values: Mapping[str, Scalar]) -> str:
    """As in `fraction=0.25 student=r3d`: each name's last part with its value."""
    return " ".join(f"{name.rsplit('.', 1)[-1]}={value}" for name, value in values.items())


def _covers(values: Mapping[str, Scalar], part: Mapping[str, Scalar]) -> bool:
    return all(name in values and values[name] == value for name, value in part.items())
