"""Optuna's samplers, one for each candidate, with every setting named.

Every setting of a sampler that Optuna lets a caller choose is named here, so that a new version with other defaults
asks for the same candidates. The golden candidates of tests/test_search.py guard the rest.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna import samplers
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers.nsgaii import UniformCrossover
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial, TrialState, create_trial

from kdtune.config.space import Parameter
from kdtune.config.sweep import Block, SweepConfig

#: Number of trials that warm-starting CMA-ES needs.
LEAST_SOLUTIONS = 10


def sampler_of(
    sweep: SweepConfig,
    block: Block,
    candidate: int,
    draw: int,
    common: IntersectionSearchSpace,
    source: Sequence[FrozenTrial] = (),
) -> samplers.BaseSampler:
    """Return a new sampler for a draw of a candidate, seeded from (search seed, block, candidate).

    The seed of a further draw also depends on its number.
    `common` is the search space shared by the block's samplers; `source` are trials of earlier sweeps, for CMA-ES.
    """
    search = sweep.search
    seed = seed_of(search.seed, block.label, candidate, *([f"draw {draw}"] if draw else ()))
    match search.sampler:
        case "tpe":
            several = len(sweep.objectives) > 1
            return _Tpe(common, **tpe_settings(several), seed=seed, n_startup_trials=search.startup)
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
                **_warm_start(sweep, block, source),
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
            return _Qmc(sweep.space(block), seed_of(search.seed, block.label))
        case _:
            return samplers.RandomSampler(seed=seed)


def _warm_start(sweep: SweepConfig, block: Block, source: Sequence[FrozenTrial]) -> dict[str, Any]:
    """Return the settings by which CMA-ES starts from the complete trials of earlier sweeps; it ignores pruned ones.

    Warm-starting CMA-ES (Nomura et al., AAAI 2021, arXiv:2012.06932) estimates a distribution from the best tenth, and
    refuses fewer than ten trials. Fewer are repeated, so that the search starts around the best of them.
    """
    complete = [trial for trial in source if trial.state == TrialState.COMPLETE]
    if not complete:
        return {}
    complete *= math.ceil(LEAST_SOLUTIONS / len(complete))
    ranges = [name for name, parameter in sweep.space(block).items() if parameter.choice is None and not parameter.when]
    return {
        "source_trials": [
            create_trial(
                value=trial.value,
                params={name: trial.params[name] for name in ranges},
                distributions={name: trial.distributions[name] for name in ranges},
            )
            for trial in complete
        ]
    }


def seed_of(*parts: object) -> int:
    """Return the seed of a sampler, a digest of `parts`."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4])


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


def distribution(parameter: Parameter) -> BaseDistribution:
    """Return a parameter's values as Optuna's distribution."""
    if parameter.choice is not None:
        return CategoricalDistribution(parameter.choice)
    if (whole := parameter.int or parameter.int_log) is not None:
        return IntDistribution(*whole, log=parameter.is_log)
    low, high = parameter.bounds or (0.0, 0.0)
    return FloatDistribution(low, high, log=parameter.is_log)


def replace_end(
    study: optuna.Study, number: int, state: TrialState, values: list[float] | None, intermediate: dict[int, float]
) -> None:
    """Replace how a finished trial of a study in memory ended, so that samplers see it once, with its new end.

    Optuna does not change a finished trial, but a study in memory shares its trials with readers that want no copies.
    Raises RuntimeError if this version of Optuna makes copies.
    """
    trial = study.get_trials(deepcopy=False)[number]
    trial.intermediate_values, trial.values, trial.state = intermediate, values, state
    if study.get_trials()[number].state != state:
        raise RuntimeError(f"Optuna {optuna.__version__} does not share the trials of a study in memory")
