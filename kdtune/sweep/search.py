"""Which values the next candidate gets: Optuna's samplers, asked so that the answer is a function (DESIGN 4.4).

A block's search is a study in memory. Candidate n is asked when exactly the candidates ≤ n − window have been told, in
candidate order; those between are Optuna's running trials, without results. The sampler of candidate n is made anew and
seeded from (search seed, block, n). So the study, and with it the answer, depends neither on when a trial ended nor on
what else is running, and a sweep that is run again builds the same study from its ledger and the TrialStore.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from threadpoolctl import threadpool_limits

from kdtune.config.space import Parameter, Scalar
from kdtune.config.sweep import Block, SweepConfig

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Finished:
    """What the search is told of a candidate that has ended."""

    state: Literal["complete", "pruned", "failed"]
    objectives: Sequence[float] = ()
    """Of a complete one: each objective's value."""
    stages: Mapping[int, float] = field(default_factory=dict)
    """Epoch → the first objective's metric there: Optuna's intermediate values."""


class Search:
    """The search of one block: candidates are asked in order, and told in order."""

    def __init__(self, sweep: SweepConfig, block: Block) -> None:
        self.sweep, self.block = sweep, block
        self.space = sweep.space(block)
        self._grid = sweep.grid(block) if sweep.search.sampler == "grid" else []
        self._study = optuna.create_study(directions=directions(sweep), sampler=RandomSampler(seed=0))
        self._common = IntersectionSearchSpace(include_pruned=True)
        self._asked: list[Trial] = []
        self._grid_asked = self._told = 0

    def ask(self, recorded: Mapping[str, Scalar] | None = None) -> dict[str, Scalar]:
        """Values of the next candidate. Where it is `recorded` that others were asked, the search goes on with those.

        Optuna remembers its own draw; what is returned, and trained, is that draw in four significant digits.
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

    def tell(self, finished: Finished) -> None:
        """How the first candidate that was not told yet has ended."""
        self._told += 1
        if self._grid:
            return
        trial = self._asked[self._told - 1]
        if len(self._study.directions) == 1:  # Optuna has no intermediate values of several objectives
            for epoch, value in finished.stages.items():
                trial.report(value, epoch)
        values = list(finished.objectives) if finished.state == "complete" else None
        self._study.tell(trial, values, STATES[finished.state])

    def _sampler(self, candidate: int) -> BaseSampler:
        search = self.sweep.search
        seed = _seed(search.seed, self.block.label, candidate)
        match search.sampler:
            case "tpe":
                return _Tpe(self._common, seed=seed, n_startup_trials=search.startup)
            case "gp":
                return GPSampler(seed=seed, n_startup_trials=search.startup, warn_independent_sampling=False)
            case "cmaes":
                return CmaEsSampler(seed=seed, n_startup_trials=search.startup, warn_independent_sampling=False)
            case "nsga2":
                return NSGAIISampler(seed=seed, population_size=max(2, search.startup))
            case "qmc":
                # One sequence for the whole block: the study counts how far it has come.
                return _Qmc(self.space, _seed(search.seed, self.block.label))
            case _:
                return RandomSampler(seed=seed)

    def _one_thread(self) -> AbstractContextManager[Any]:
        """Linear algebra in one thread where a sampler computes with it: how many there are changes its last bits."""
        if self.sweep.search.sampler == "gp":
            import torch  # noqa: F401  # before its threads are limited
        return threadpool_limits(1) if self.sweep.search.sampler in ("gp", "cmaes") else nullcontext()


class _Tpe(TPESampler):
    """Optuna's TPE. Which parameters all finished candidates have it would find out anew with every sampler, that is
    with every candidate; `common` goes on from the candidate before."""

    def __init__(self, common: IntersectionSearchSpace, **options: Any) -> None:
        super().__init__(**options)
        self._common = common

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        if len(study.directions) > 1:  # then each parameter is drawn by itself
            return super().infer_relative_search_space(study, trial)
        found = self._common.calculate(study)
        return {name: distribution for name, distribution in found.items() if not distribution.single()}


class _Qmc(QMCSampler):
    """Optuna's quasi-random sampler over all parameters of the space: also its first point, and with conditions."""

    def __init__(self, space: Mapping[str, Parameter], seed: int) -> None:
        super().__init__(scramble=True, seed=seed, warn_independent_sampling=False)
        found = {name: distribution(parameter) for name, parameter in space.items()}
        self._whole = {name: distribution for name, distribution in found.items() if not distribution.single()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._whole)


def directions(sweep: SweepConfig) -> list[StudyDirection]:
    """Of the objectives, in Optuna's words."""
    words = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
    return [words[objective.mode] for objective in sweep.objectives]


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
    """Of a parameter's values, in Optuna's words."""
    if parameter.choice is not None:
        return CategoricalDistribution(parameter.choice)
    if (whole := parameter.int or parameter.int_log) is not None:
        return IntDistribution(*whole, log=parameter.is_log)
    low, high = parameter.bounds or (0.0, 0.0)
    return FloatDistribution(low, high, log=parameter.is_log)


def _rounded(value: Any, parameter: Parameter) -> Scalar:
    """Four significant digits, so that the value a table prints is the value that was trained."""
    if parameter.bounds is None or not isinstance(value, float):
        return value
    return min(max(float(f"{value:.4g}"), parameter.bounds[0]), parameter.bounds[1])
