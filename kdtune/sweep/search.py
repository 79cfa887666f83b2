"""Which values the next candidate gets: Optuna's samplers, asked so that the answer is a function (DESIGN 4.4).

The sampler of candidate n sees exactly the finished candidates that it may learn from, told in candidate order, and is
seeded from (search seed, block, n). So the answer depends neither on when it is asked nor on what else is running.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from kdtune.config.space import Parameter, Scalar
from kdtune.config.sweep import Block, SweepConfig

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


@dataclass(frozen=True)
class Finished:
    """What the search is told of a candidate that has ended."""

    values: Mapping[str, Scalar]
    state: Literal["complete", "pruned", "failed"]
    objective: float | None = None
    stages: Mapping[int, float] = field(default_factory=dict)
    """Epoch → the objective's metric there: Optuna's intermediate values."""


def ask(sweep: SweepConfig, block: Block, candidate: int, history: Sequence[Finished]) -> dict[str, Scalar]:
    """Values of `candidate` in `block`; `history` holds candidates 0 … candidate − window, in order."""
    if sweep.search.sampler == "grid":
        return sweep.grid(block)[candidate]
    space = sweep.space(block)
    study = optuna.create_study(
        direction="maximize" if sweep.objective.mode == "max" else "minimize", sampler=_sampler(sweep, block, candidate)
    )
    study.add_trials([_told(finished, space) for finished in history])
    trial = study.ask()
    values: dict[str, Scalar] = {}
    for name, parameter in space.items():
        if parameter.active({**block.values, **values}):
            values[name] = _rounded(trial._suggest(name, _distribution(parameter)), parameter)
    return values


def _sampler(sweep: SweepConfig, block: Block, candidate: int) -> BaseSampler:
    name = f"{sweep.search.seed}/{block.label}/{candidate}".encode()
    seed = int.from_bytes(hashlib.sha256(name).digest()[:4])
    if sweep.search.sampler == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=sweep.search.startup)


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.choice is not None:
        return CategoricalDistribution(parameter.choice)
    if parameter.int is not None:
        return IntDistribution(*parameter.int)
    low, high = parameter.log or parameter.range or (0.0, 0.0)
    return FloatDistribution(low, high, log=parameter.log is not None)


def _rounded(value: Scalar, parameter: Parameter) -> Scalar:
    """Four significant digits, so that the value a table prints is the value that was trained."""
    bounds = parameter.log or parameter.range
    if bounds is None or not isinstance(value, float):
        return value
    return min(max(float(f"{value:.4g}"), bounds[0]), bounds[1])


def _told(finished: Finished, space: Mapping[str, Parameter]) -> FrozenTrial:
    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    return create_trial(
        state=states[finished.state],
        value=finished.objective if finished.state == "complete" else None,
        params=dict(finished.values),
        distributions={name: _distribution(space[name]) for name in finished.values},
        intermediate_values=dict(finished.stages),
    )
