"""A sweep file: what its trials share, what is searched, what is compared across, and how the search goes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from kdtune.config.inherit import inherit
from kdtune.config.key import NOT_HASHED, TRAINER_SEMANTICS, digest
from kdtune.config.metrics import Metric
from kdtune.config.sections import Count, DataConfig, Section
from kdtune.config.space import Scalar, SpaceEntry, resolve, set_path
from kdtune.config.trial import TrialConfig


class SearchConfig(Section):
    """What is searched, and how. Candidate n learns only from candidates ≤ n − window (DESIGN 4.4)."""

    space: dict[str, SpaceEntry]
    """Parameter → its values: `[a, b]`, `{range: [lo, hi]}`, `{log: [lo, hi]}` or `{int: [lo, hi]}`."""
    blocks: dict[str, Annotated[list[Scalar], Field(min_length=1)]] = {}
    """Values that are compared across, never against: one search for each combination."""
    exclude: list[dict[str, Scalar]] = []
    """Combinations that are not tried: values of blocks, and of at most one choice of the space."""
    controls: Annotated[list[dict[str, Scalar]], Field(min_length=1)] = [{"teacher": "none"}]
    """Trials without search that every block has for every seed; never pruned, gains are measured against the first."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """Optuna's TPE or random sampling, or every combination of choices in order."""
    candidates: Count | None = None
    """In each block. A grid may leave it out: it then has all its points."""
    startup: Count = 4
    """Finished candidates that TPE wants to see before it learns; until then it draws at random."""
    seeds: Annotated[list[int], Field(min_length=1)] = [0]
    """Each candidate is trained with each of them; the objective is the mean."""
    window: Count = 4
    """At least the number of candidates of a block that may run side by side."""
    seed: int = 0
    """Of the search itself."""


class ObjectiveConfig(Section):
    """The number that the search optimises."""

    metric: Metric = "knn"
    """`top1`, `f1` and the like are the action head's: of the stage `finetune`, or where loss.target is action."""
    split: Literal["validation", "test"] = "validation"
    """`test` follows the papers; then no untouched figure is left to report."""
    stage: str = "late"
    """One of the trial's stages, or `finetune` where `trial.finetune` asks for it."""
    mode: Literal["max", "min"] = "max"


class PruneConfig(Section):
    """At each named stage a candidate goes on if it is in the best `keep` share of its finished peers and itself."""

    at: list[str] = []
    keep: Annotated[float, Field(gt=0, le=1)] = 0.5
    min_peers: Count = 2
    """With fewer peers than this every candidate goes on."""


class ResourceConfig(Section):
    """Of one trial."""

    cpu: Annotated[float, Field(gt=0)] = 1
    """Cores. How many threads a trial computes with is `trial.threads`: that changes bits, this does not."""
    gpu: Annotated[float, Field(ge=0)] = 0
    """GPUs, or a share of one: 0.25 puts four trials on a GPU."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes of a trial that draw and read its batches ahead, beside the trainer; their number changes no bit."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a failed trial is started again from its checkpoint before it is marked failed."""


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


class TrackingConfig(Section):
    """Where MLflow shows the sweep."""

    experiment: str | None = None
    """Default: the sweep's name."""


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

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    question: str = ""
    """In a sentence, for tables and for MLflow."""
    trial: TrialConfig = TrialConfig()
    """What all trials share; what is left out has the paper's value."""
    teachers: dict[str, TeacherConfig] = {}
    """Each is a trial of its own: what it leaves out, it takes from `trial`. Trained when first needed."""
    search: SearchConfig
    objective: ObjectiveConfig = ObjectiveConfig()
    prune: PruneConfig = PruneConfig()
    resources: ResourceConfig = ResourceConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def experiment(self) -> str:
        return self.tracking.experiment or self.name

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
                left = [choice for choice in space[name].choice or [] if choice != value]
                space[name] = space[name].model_copy(update={"choice": left})
        return space

    def candidates(self, block: Block) -> int:
        """How many candidates the block has."""
        if self.search.sampler == "grid":
            points = len(self.grid(block))
            return min(points, self.search.candidates or points)
        return self.search.candidates or 0

    def grid(self, block: Block) -> list[dict[str, Scalar]]:
        """All points of a space of choices, the last parameter turning fastest."""
        points: list[dict[str, Scalar]] = [{}]
        for name, parameter in self.space(block).items():
            points = [
                {**point, name: value}
                for point in points
                for value in (parameter.choice or [] if parameter.active({**block.values, **point}) else [None])
            ]
        return [{name: value for name, value in point.items() if value is not None} for point in points]

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
        unasked = {"name": True, "question": True, "resources": True, "tracking": True}
        form = self.model_dump(mode="json", by_alias=True, exclude=unasked)
        del form["search"]["candidates"]
        for config in (form["trial"], *form["teachers"].values()):
            for field in NOT_HASHED:
                del config["data"][field]
        return digest({**form, "semantics": TRAINER_SEMANTICS})

    def _shared(self) -> dict[str, Any]:
        return self.trial.model_dump(by_alias=True, exclude_unset=True)


def values_label(values: Mapping[str, Scalar]) -> str:
    """As in `fraction=0.25 student=r3d`: each name's last part with its value."""
    return " ".join(f"{name.rsplit('.', 1)[-1]}={value}" for name, value in values.items())


def _covers(values: Mapping[str, Scalar], part: Mapping[str, Scalar]) -> bool:
    return all(name in values and values[name] == value for name, value in part.items())
