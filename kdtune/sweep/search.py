"""Choose the values of the next candidate: Optuna's samplers, used as a pure function (DESIGN 4.4).

A block's search is a study in memory. Candidate n is asked when exactly the candidates ≤ n − window have been told, in
candidate order; to Optuna those in between are running trials without results. Each candidate gets a new sampler,
seeded from (search seed, block, n). The study therefore depends neither on when a trial ended nor on what else is
running, and a resumed sweep rebuilds the same study from its ledger and the TrialStore.

Every setting of a sampler that Optuna lets a caller choose is named here, so that a new version with other defaults
asks for the same candidates. The golden candidates of tests/test_search.py guard the rest.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import optuna
from optuna import samplers
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers.nsgaii import UniformCrossover
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from kdtune.config.space import Parameter, Scalar
from kdtune.config.sweep import Block, SweepConfig
from kdtune.history.events import Outcome
from kdtune.scoped import kept_process, kept_warnings

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Optuna's progress messages and its warnings about experimental features, for the length of a block."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with kept_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


class Search:
    """The search of one block. Candidates are asked in order and told in order."""

    @quiet()
    def __init__(self, sweep: SweepConfig, block: Block) -> None:
        self.sweep, self.block = sweep, block
        self.space = sweep.space(block)
        self._grid = sweep.grid(block) if sweep.search.sampler == "grid" else []
        self._study = optuna.create_study(directions=directions(sweep), sampler=samplers.RandomSampler(seed=0))
        self._common = IntersectionSearchSpace(include_pruned=True)
        self._asked: list[Trial] = []
        self._grid_asked = self._told = 0

    @quiet()
    def ask(self, recorded: Mapping[str, Scalar] | None = None) -> dict[str, Scalar]:
        """Return the values of the next candidate, floats rounded to four significant digits.

        Optuna remembers its unrounded draw. If `recorded` values differ from the draw, the study learns from those
        instead; the fresh draw is still returned.
        """
        if self._grid:
            self._grid_asked += 1
            return self._grid[self._grid_asked - 1]
        self._study.sampler = self._sampler(len(self._asked))
        values: dict[str, Scalar] = {}
        with self._one_thread():
            trial = self._study.ask()
            for name, parameter in self.space.items():
                if parameter.active({**self.block.values, **values}):
                    values[name] = _rounded(_suggest(trial, name, parameter), parameter)
        if recorded is not None and recorded != values:
            self._study.tell(trial, state=TrialState.FAIL)
            self._study.enqueue_trial(dict(recorded))
            trial = self._study.ask()
            for name in recorded:
                _suggest(trial, name, self.space[name])
        self._asked.append(trial)
        return values

    def tell(self, outcome: Outcome) -> None:
        """Record how the next candidate ended; candidates are told in the order in which they were asked."""
        self._told += 1
        if self._grid:
            return
        trial = self._asked[self._told - 1]
        if len(self._study.directions) == 1:  # Optuna refuses intermediate values with several objectives
            for epoch, value in intermediate_values(self.sweep, outcome).items():
                trial.report(value, epoch)
        self._study.tell(trial, list(outcome.objectives) or None, STATES[outcome.state])

    def _sampler(self, candidate: int) -> samplers.BaseSampler:
        search = self.sweep.search
        seed = _seed(search.seed, self.block.label, candidate)
        match search.sampler:
            case "tpe":
                several = len(self._study.directions) > 1
                return _Tpe(self._common, **tpe_settings(several), seed=seed, n_startup_trials=search.startup)
            case "gp":
                return samplers.GPSampler(
                    seed=seed,
                    independent_sampler=samplers.RandomSampler(seed=seed),
                    n_startup_trials=search.startup,
                    deterministic_objective=False,
                    warn_independent_sampling=False,
                )
            case "cmaes":
                return samplers.CmaEsSampler(
                    seed=seed,
                    independent_sampler=samplers.RandomSampler(seed=seed),
                    n_startup_trials=search.startup,
                    consider_pruned_trials=False,
                    popsize=None,  # 4 + ⌊3 ln(number of parameters)⌋
                    use_separable_cma=False,
                    with_margin=False,
                    lr_adapt=False,
                    warn_independent_sampling=False,
                )
            case "nsga2":
                return samplers.NSGAIISampler(
                    seed=seed,
                    population_size=max(2, search.startup),
                    mutation=None,  # draw a new value, uniformly
                    mutation_prob=None,  # 1 / number of parameters
                    crossover=UniformCrossover(swapping_prob=0.5),
                    crossover_prob=0.9,
                    swapping_prob=0.5,
                )
            case "qmc":
                # One sequence for the whole block; the study counts how many of its points are used.
                return _Qmc(self.space, _seed(search.seed, self.block.label))
            case _:
                return samplers.RandomSampler(seed=seed)

    def _one_thread(self) -> AbstractContextManager[Any]:
        """Limit linear algebra to one thread for samplers that use it: the thread count changes the last bits."""
        if self.sweep.search.sampler == "gp":
            import torch  # noqa: F401  # threadpoolctl limits loaded libraries only
        if self.sweep.search.sampler not in ("gp", "cmaes"):
            return nullcontext()
        with kept_process("KMP_DUPLICATE_LIB_OK"):
            from threadpoolctl import threadpool_limits
        return threadpool_limits(1)


def tpe_settings(several: bool) -> dict[str, Any]:
    """Return the settings of TPE, for one objective or `several`.

    Optuna has deprecated the arguments for the prior, the end points and the magic clip and will remove them, so they
    cannot be named. Every version that accepts them uses the same values.
    """
    return {
        "n_ei_candidates": 24,
        "multivariate": not several,
        "group": False,  # conditional parameters are drawn one by one
        "constant_liar": True,  # running candidates count as bad, which keeps those of one window apart
    }


class _Tpe(samplers.TPESampler):
    """Optuna's TPE with a faster search space.

    Optuna computes the parameters that all finished candidates share from scratch for every sampler, hence for every
    candidate. `common` updates the previous candidate's set instead.
    """

    def __init__(self, common: IntersectionSearchSpace, **options: Any) -> None:
        super().__init__(**options)
        self._common = common

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        if len(study.directions) > 1:  # each parameter is drawn independently
            return super().infer_relative_search_space(study, trial)
        found = self._common.calculate(study)
        return {name: distribution for name, distribution in found.items() if not distribution.single()}


class _Qmc(samplers.QMCSampler):
    """Optuna's quasi-random sampler over all parameters of the space, conditional ones included.

    Optuna's own uses the parameters of the first trial, and draws that trial at random.
    """

    def __init__(self, space: Mapping[str, Parameter], seed: int) -> None:
        super().__init__(
            qmc_type="sobol",
            scramble=True,
            seed=seed,
            independent_sampler=samplers.RandomSampler(seed=seed),
            warn_independent_sampling=False,
        )
        found = {name: distribution(parameter) for name, parameter in space.items()}
        self._whole = {name: distribution for name, distribution in found.items() if not distribution.single()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._whole)


def intermediate_values(sweep: SweepConfig, outcome: Outcome) -> dict[int, float]:
    """Return epoch → the first objective's metric at the stage that ends there: Optuna's intermediate values."""
    return {sweep.trial.milestones[stage]: value for stage, value in outcome.stages.items()}


def directions(sweep: SweepConfig) -> list[StudyDirection]:
    """Return the objectives' directions as Optuna's."""
    best, least = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    return [best if objective.mode == "max" else least for objective in sweep.objectives]


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4])


def _suggest(trial: Trial, name: str, parameter: Parameter) -> Any:
    match distribution(parameter):
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
        case IntDistribution(low=low, high=high, log=log):
            return trial.suggest_int(name, low, high, log=log)
        case FloatDistribution(low=low, high=high, log=log):
            return trial.suggest_float(name, low, high, log=log)


def distribution(parameter: Parameter) -> BaseDistribution:
    """Return a parameter's values as Optuna's distribution."""
    if parameter.choice is not None:
        return CategoricalDistribution(parameter.choice)
    if (whole := parameter.int or parameter.int_log) is not None:
        return IntDistribution(*whole, log=parameter.is_log)
    low, high = parameter.bounds or (0.0, 0.0)
    return FloatDistribution(low, high, log=parameter.is_log)


def _rounded(value: Any, parameter: Parameter) -> Scalar:
    """Round to four significant digits, so that tables print exactly the value that was trained."""
    if parameter.bounds is None or not isinstance(value, float):
        return value
    return min(max(float(f"{value:.4g}"), parameter.bounds[0]), parameter.bounds[1])
