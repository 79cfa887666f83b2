"""The sections of a sweep file beside its trial: what is searched and how, objectives, pruning, budgets, resources."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from kdtune.config.fields import Count, Section, Seed
from kdtune.config.metrics import Metric, OfCost
from kdtune.config.space import Scalar, SpaceEntry
from kdtune.names import LONGEST_NAME, NAME_PATTERN

Mode = Literal["max", "min"]


class SearchConfig(Section):
    """What is searched, and how. Candidate n learns only from candidates ≤ n − window (DESIGN 4.4)."""

    space: Annotated[dict[str, SpaceEntry], Field(max_length=100)]
    """Parameter → its values: `[a, b]`, `{range: [lo, hi]}`, `{log: [lo, hi]}`, `{int: [lo, hi]}`, `{int_log: …}`."""
    blocks: dict[str, Annotated[list[Scalar], Field(min_length=1)]] = {}
    """Values that are compared across, never against: one search for each combination."""
    exclude: Annotated[list[dict[str, Scalar]], Field(max_length=200)] = []
    """Combinations that are not tried: values of blocks, and of at most one choice of the space."""
    controls: Annotated[list[dict[str, Scalar]], Field(min_length=1, max_length=100)] = [{"teacher": "none"}]
    """Trials without search that every block has for every seed; never pruned, gains are measured against the first."""
    sampler: Literal["tpe", "random", "grid", "gp", "cmaes", "qmc", "nsga2"] = "tpe"
    """Optuna's: TPE, Gaussian process, CMA-ES, NSGA-II; or not learning from results: random, a quasi-random sequence
    (qmc: Sobol, scrambled), every combination of choices in order (grid)."""
    candidates: Count | None = None
    """In each block. A grid may leave it out: it then has all its points."""
    startup: Count = 4
    """Finished candidates that a sampler wants to see before it learns; until then it draws at random. For nsga2 the
    size of a generation."""
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000)] = [0]
    """Each candidate is trained with each of them; the objective is the mean."""
    window: Count = 4
    """At least the number of candidates of a block that may run side by side."""
    seed: Seed = 0
    """Of the search itself."""


class ObjectiveConfig(Section):
    """The number that the search optimises."""

    metric: Metric | OfCost = "knn"
    """`top1`, `f1` and the like are the action head's: of the stage `finetune`, or where loss.target is action.
    `parameters`, `gmac`, `peak_memory`, `clip_ms` and `epoch_seconds` are what a complete trial costs; the last three
    are measured, once a trial, on the machine that trained it."""
    split: Literal["validation", "test"] = "validation"
    """`test` follows the papers; then no untouched figure is left to report. Costs have no split."""
    stage: str = "late"
    """One of the trial's stages, or `finetune` where `trial.finetune` asks for it. Costs have no stage."""
    mode: Mode = "max"


def _one_or_several(value: Any) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


#: Where pydantic reports an error in one of the objectives, these stand in its path; no file has them.
OBJECTIVE_TAGS = ("one", "several")
Objectives = Annotated[
    Annotated[ObjectiveConfig, Tag("one")]
    | Annotated[list[ObjectiveConfig], Field(min_length=1, max_length=10), Tag("several")],
    Discriminator(_one_or_several),
]


class PruneConfig(Section):
    """At each named stage a candidate goes on if it is in the best `keep` share of its finished peers and itself."""

    at: list[str] = []
    keep: Annotated[float, Field(gt=0, le=1)] = 0.5
    min_peers: Count = 2
    """With fewer peers than this every candidate goes on."""


class StopConfig(Section):
    """Budgets. When one is used up, nothing new begins, and the same command with a larger one goes on."""

    hours: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Of one run of the command. What is in work then writes its checkpoint and stops."""
    trials: Count | None = None
    """Trainings that one run of the command begins, teachers and controls included. What is in work is finished."""
    target: float | None = None
    """A candidate whose first objective reaches it ends the sweep. What is in work writes its checkpoint and stops."""


class ResourceConfig(Section):
    """Of one trial."""

    cpu: Annotated[float, Field(gt=0, le=100_000)] = 1
    """Cores. How many threads a trial computes with is `trial.threads`: that changes bits, this does not."""
    gpu: Annotated[float, Field(ge=0, le=1)] = 0
    """A GPU, or a share of one: 0.25 puts four trials on a GPU. A trial owns one device at most."""
    memory: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """GiB that a trial is given room for. Left out, trials are packed by cores and GPUs alone."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Processes of a trial that draw and read its batches ahead, beside the trainer; their number changes no bit."""
    retries: Annotated[int, Field(ge=0, le=1000)] = 2
    """How often a failed trial is started again from its checkpoint before it is marked failed."""


class TrackingConfig(Section):
    """Where MLflow shows the sweep, and what of it beside parameters and metrics."""

    experiment: (
        Annotated[str, Field(min_length=1, max_length=LONGEST_NAME, pattern=r"^[^/\s]([^/]*[^/\s])?$")] | None
    ) = None
    """Default: the sweep's name."""
    models: Literal["none", "best", "all"] = "best"
    """Which students are logged as MLflow models when the sweep ends: the best candidate of each block and its control,
    every complete trial, or none."""
    register_as: Annotated[str, Field(max_length=LONGEST_NAME, pattern=NAME_PATTERN)] | None = Field(
        default=None, alias="register"
    )
    """A name in MLflow's model registry for the best student of each block, with the alias `best-BLOCK`."""

    @model_validator(mode="after")
    def _registers_what_is_logged(self) -> TrackingConfig:
        if self.register_as is not None and self.models == "none":
            raise PydanticCustomError("register", "register needs models: best or all, but got none")
        return self
