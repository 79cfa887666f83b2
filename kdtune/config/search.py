"""The sections of a sweep file besides `trial`: search, objectives, pruning, budgets, resources, tracking."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from kdtune.config.fields import Count, Section, Seed, broken
from kdtune.config.metrics import Metric, OfCost
from kdtune.config.seeds import RaceConfig, RaceSeeds, Seeds
from kdtune.config.space import Scalar, SpaceEntry
from kdtune.names import LONGEST_NAME, NAME_PATTERN

Mode = Literal["max", "min"]
SweepName = Annotated[str, Field(max_length=LONGEST_NAME, pattern=NAME_PATTERN)]
#: Samplers of `search.sampler` that learn from results.
LEARNING = ("tpe", "gp", "cmaes", "nsga2")


class SearchConfig(Section):
    """The search space and how to search it. Candidate n learns only from candidates ≤ n − window."""

    space: Annotated[dict[str, SpaceEntry], Field(max_length=100)]
    """The searched parameters, by name: `[a, b]`, `{range: [lo, hi]}`, `{log: [lo, hi]}`, `{int: [lo, hi]}`,
    `{int_log: [lo, hi]}`. A name is a path in the trial configuration, or short: student, teacher, lambda, tau, alpha,
    fraction."""
    blocks: dict[str, Annotated[list[Scalar], Field(min_length=1)]] = {}
    """Parameters whose values never compete, by name. Each combination of values has a search of its own, and results
    are compared across blocks afterwards."""
    exclude: Annotated[list[dict[str, Scalar]], Field(max_length=200)] = []
    """Combinations to leave out: values of blocks, and of at most one choice of the space."""
    controls: Annotated[list[dict[str, Scalar]], Field(min_length=1, max_length=100)] = [{"teacher": "none"}]
    """Fixed trials of every block and seed. They are never pruned, and gains are measured against the first."""
    sampler: Literal["tpe", "random", "grid", "gp", "cmaes", "qmc", "nsga2"] = "tpe"
    """Optuna's sampler. These learn from results: tpe, gp (Gaussian process), cmaes (CMA-ES), nsga2 (NSGA-II). These do
    not: random, qmc (scrambled Sobol sequence), grid (every combination of choices, in order)."""
    from_: Literal["compatible"] | Annotated[list[SweepName], Field(max_length=100)] = Field(default=[], alias="from")
    """Earlier sweeps of the store from which the sampler learns before candidate 0: their names, or `compatible` for
    all of them. Only candidates whose trials this sweep would train itself, with the same keys, are used."""
    first: Annotated[list[dict[str, Scalar]], Field(max_length=1000)] = []
    """Points that each block tries first, in this order. The sampler draws the parameters that a point leaves out."""
    candidates: Count | None = None
    """Number of candidates in each block. Optional for a grid, which then has all its points."""
    startup: Count = 4
    """Finished candidates that a sampler needs before it learns; until then it draws at random. For nsga2, the size of
    a generation."""
    seeds: Seeds = [0]
    """Seeds with which each candidate is trained; the objective is the mean over them. Or `{race: {…}}`: a race, which
    gives further seeds to the candidates that may still win."""
    window: Count = 4
    """Lag of learning: candidate n learns from candidates ≤ n − window. It should be at least the number of candidates
    of a block that may run in parallel."""
    seed: Seed = 0
    """Seed of the search itself."""

    @property
    def race(self) -> RaceConfig | None:
        """The race, or None where every candidate has the same seeds."""
        return self.seeds.race if isinstance(self.seeds, RaceSeeds) else None

    @property
    def first_seeds(self) -> list[int]:
        """Seeds with which every candidate and control is trained; a race adds further ones."""
        return list(range(self.seeds.race.first)) if isinstance(self.seeds, RaceSeeds) else self.seeds

    @property
    def every_seed(self) -> list[int]:
        """All seeds that a candidate may have."""
        return list(range(self.seeds.race.most)) if isinstance(self.seeds, RaceSeeds) else self.seeds

    @property
    def seeds_text(self) -> str:
        """The seeds in words, as in `0, 1, 2` or `a race from 2 to 8, 95% confidence`."""
        return ", ".join(map(str, self.seeds)) if not isinstance(self.seeds, RaceSeeds) else str(self.seeds.race)


class ObjectiveConfig(Section):
    """The number that the search optimises."""

    metric: Metric | OfCost = "knn"
    """The figure to optimise. `top1`, `f1` and the like come from the action head: at the stage `finetune`, or where
    loss.target is action. `parameters`, `gmac`, `peak_memory`, `clip_ms` and `epoch_seconds` are costs of a complete
    trial; the last three are measured, once per trial, on the machine that trains it."""
    split: Literal["validation", "test"] = "validation"
    """Videos on which the metric is measured. `test` follows the papers, but leaves no untouched figure to report.
    Costs have no split."""
    stage: str = "late"
    """Stage at which the metric is measured: one of the trial's, or `finetune` if the trial has `finetune`. Costs have
    no stage."""
    mode: Mode = "max"
    """Whether a larger (`max`) or a smaller (`min`) value is better."""


def _one_or_several(value: Any) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


#: Tags that pydantic adds to the path of an error in an objective; they are not part of the file.
OBJECTIVE_TAGS = ("one", "several")
Objectives = Annotated[
    Annotated[ObjectiveConfig, Tag("one")]
    | Annotated[list[ObjectiveConfig], Field(min_length=1, max_length=10), Tag("several")],
    Discriminator(_one_or_several),
]


class PruneConfig(Section):
    """Pruning: at each named stage, a candidate continues if it is in the best `keep` share of its finished peers and
    itself."""

    at: list[str] = []
    """Names of the stages at which candidates are pruned."""
    keep: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the candidates that continue."""
    min_peers: Count = 2
    """Number of finished peers that pruning needs. With fewer, every candidate continues."""
    promote: bool = False
    """Take up a pruned candidate again, from its checkpoint, when its value at that stage would pass among the peers
    that have finished since. A candidate that `report --regret` has trained to its end counts with its full result."""


class StopConfig(Section):
    """Budgets. When one is used up, no new trial starts; the same command with a larger budget resumes the sweep."""

    hours: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Hours after which one run of the command ends. Running trials then write their checkpoints and stop."""
    trials: Count | None = None
    """Number of trainings that one run of the command starts, including teachers and controls. Running trials are
    finished."""
    target: float | None = None
    """Value of the first objective that ends the sweep when a candidate reaches it. Running trials write their
    checkpoints and stop."""


class ResourceConfig(Section):
    """Resources of one trial."""

    cpu: Annotated[float, Field(gt=0, le=100_000)] = 1
    """Number of cores, for scheduling only. The trainer's threads are `trial.threads`, which changes bits; this does
    not."""
    gpu: Annotated[float, Field(ge=0, le=1)] = 0
    """Number of GPUs, at most one, or a share of one: 0.25 puts four trials on a GPU."""
    memory: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """GiB of memory to reserve for a trial. If left out, trials are packed by cores and GPUs only."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Extra processes of a trial that draw and read its batches ahead. Their number changes no bit."""
    same_device: bool | None = None
    """Whether a block's trials keep to one device model of a cluster, so that gains compare like with like. Default: if
    they train on GPUs. Processors need labels for it (`ray start --labels kdtune-cpu=MODEL`)."""
    retries: Annotated[int, Field(ge=0, le=1000)] = 2
    """Number of times that a failed trial is restarted from its checkpoint before it is marked failed."""


class TrackingConfig(Section):
    """What MLflow shows of the sweep besides parameters and metrics, and in which experiment."""

    experiment: (
        Annotated[str, Field(min_length=1, max_length=LONGEST_NAME, pattern=r"^[^/\s]([^/]*[^/\s])?$")] | None
    ) = None
    """Name of the MLflow experiment. Default: the sweep's name."""
    models: Literal["none", "best", "all"] = "best"
    """Students to log as MLflow models when the sweep ends: the best candidate of each block and its control, every
    complete trial, or none."""
    register_as: Annotated[str, Field(max_length=LONGEST_NAME, pattern=NAME_PATTERN)] | None = Field(
        default=None, alias="register"
    )
    """Name in MLflow's model registry for the best student of each block, with the alias `best-BLOCK`."""

    @model_validator(mode="after")
    def _registers_what_is_logged(self) -> TrackingConfig:
        if self.register_as is not None and self.models == "none":
            raise broken("register needs models: best or all", self.models)
        return self
