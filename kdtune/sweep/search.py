"""Choose the values of the next candidate: Optuna's samplers, used as a pure function (DESIGN 4.4).

A block's search is a study in memory. Candidate n is asked when exactly the candidates ≤ n − window have been told, in
candidate order; to Optuna those in between are running trials without results. Each candidate gets a new sampler,
seeded from (search seed, block, n). The study therefore depends neither on when a trial ended nor on what else is
running, and a resumed sweep rebuilds the same study from its ledger and the TrialStore.

What earlier sweeps know (`search.from`) is told before candidate 0, and the points of `search.first` are enqueued. A
draw that breaks a constraint is told at once, and the sampler draws again for the same candidate: the verdict needs no
training, so nothing waits for it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from statistics import fmean
from typing import Any

import optuna
from optuna import samplers
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from kdtune.config.space import Parameter, Scalar
from kdtune.config.sweep import Block, SweepConfig
from kdtune.history.events import KnownCandidate, Outcome
from kdtune.scoped import kept_process, kept_warnings
from kdtune.sweep.feasible import MEMORY, Verdict
from kdtune.sweep.samplers import distribution, replace_end, sampler_of

STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "infeasible": TrialState.FAIL,
    "failed": TrialState.FAIL,
}
#: Maximum number of draws for a candidate. If the sampler finds no feasible point in so many, the last one is asked.
MOST_DRAWS = 100
#: Says whether a point of a candidate may be trained.
Judge = Callable[[Mapping[str, Scalar], int], Verdict]


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
    def __init__(
        self,
        sweep: SweepConfig,
        block: Block,
        known: Sequence[KnownCandidate] = (),
        judge: Judge = lambda values, number: Verdict(),
    ) -> None:
        """Begin the search of a block that learns from the `known` candidates of earlier sweeps, in this order."""
        self.sweep, self.block = sweep, block
        self.space = sweep.space(block)
        self._first = sweep.first(block)
        self._grid = sweep.grid(block) if sweep.search.sampler == "grid" else []
        self._study = optuna.create_study(directions=directions(sweep), sampler=samplers.RandomSampler(seed=0))
        self._common = IntersectionSearchSpace(include_pruned=True)
        self._judge = judge
        self._asked: list[Trial] = []
        self._excess: list[Mapping[str, float]] = []  # of each asked candidate
        self.redrawn: Counter[str] = Counter()
        """Bound of the constraints → number of draws for the last candidate that broke it."""
        self._results: list[tuple[float, ...]] = []  # objectives of complete candidates
        self._unvalued: list[Trial] = []  # infeasible trials for which a Gaussian process needs a value
        self._grid_asked = self._told = 0
        self._source = [self._finished(candidate) for candidate in known]
        for candidate, trial in zip(known, self._source, strict=True):
            self._recall(candidate, trial)

    @quiet()
    def ask(self, recorded: Mapping[str, Scalar] | None = None) -> dict[str, Scalar]:
        """Return the values of the next candidate: those of `search.first`, then the sampler's draws.

        Drawn floats are rounded to four significant digits. Optuna remembers its unrounded draw. If `recorded` values
        differ from the draw, the study learns from those instead; the fresh draw is still returned.
        """
        if self._grid:
            self._grid_asked += 1
            return self._grid[self._grid_asked - 1]
        number = len(self._asked)
        point = self._first[number] if number < len(self._first) else {}
        self.redrawn.clear()
        for draw in range(MOST_DRAWS):
            trial, values = self._draw(number, draw, point)
            excess = self._judge(values, number).excess
            broken = [name for name, share in excess.items() if share > 0]
            if not broken or values.keys() <= point.keys() or draw == MOST_DRAWS - 1:
                break
            self.redrawn.update(broken)
            self._tell_infeasible(trial, excess)
        if recorded is not None and recorded != values:
            self._study.tell(trial, state=TrialState.FAIL)
            self._study.enqueue_trial(dict(recorded))
            trial = self._study.ask()
            for name in recorded:
                _suggest(trial, name, self.space[name])
            excess = self._judge(recorded, number).excess
        self._asked.append(trial)
        self._excess.append(excess)
        return values

    def _draw(self, number: int, draw: int, point: Mapping[str, Scalar]) -> tuple[Trial, dict[str, Scalar]]:
        """Return the sampler's trial and values for a candidate; values given by `point` are as they are there."""
        self._study.sampler = self._sampler(number, draw)
        if point:
            self._study.enqueue_trial(dict(point))
        values: dict[str, Scalar] = {}
        with self._one_thread():
            trial = self._study.ask()
            for name, parameter in self.space.items():
                if parameter.active({**self.block.values, **values}):
                    drawn = _suggest(trial, name, parameter)
                    values[name] = point[name] if name in point else _rounded(drawn, parameter)
        return trial, values

    def tell(self, outcome: Outcome) -> None:
        """Record how the next candidate ended; candidates are told in the order in which they were asked."""
        self._told += 1
        if self._grid:
            return
        trial, excess = self._asked[self._told - 1], self._excess[self._told - 1]
        if outcome.state == "infeasible":
            # A candidate that breaks no constraint ran out of memory when it was trained.
            self._tell_infeasible(trial, excess if any(share > 0 for share in excess.values()) else {MEMORY: 1.0})
            return
        for name, share in excess.items():
            trial.set_constraint(name, share)
        for epoch, value in self._intermediate(outcome).items():
            trial.report(value, epoch)
        self._study.tell(trial, list(outcome.objectives) or None, STATES[outcome.state])
        if outcome.objectives:
            self._results.append(outcome.objectives)
            self._value_infeasible()

    def _tell_infeasible(self, trial: Trial, excess: Mapping[str, float]) -> None:
        """Tell the sampler that a trial is infeasible, as far as it learns from that."""
        for name, share in excess.items():
            trial.set_constraint(name, share)
        match self.sweep.search.sampler:
            case "tpe":
                self._study.tell(trial, state=TrialState.PRUNED)
            case "nsga2":  # compares infeasible trials by their excess alone, whatever their values
                self._study.tell(trial, [0.0] * len(self._study.directions))
            case "gp" if MEMORY not in excess:  # needs the same constraints for all trials
                self._unvalued.append(trial)
                self._value_infeasible()
            case _:
                self._study.tell(trial, state=TrialState.FAIL)

    def _value_infeasible(self) -> None:
        """Tell a Gaussian process the waiting infeasible trials, with the mean of the results so far as their value.

        It fits one model to the values of all trials; the mean says least of a trial that has no value.
        """
        if self._results:
            means = [fmean(values) for values in zip(*self._results, strict=True)]
            while self._unvalued:
                self._study.tell(self._unvalued.pop(), means)

    def tell_again(self, number: int, outcome: Outcome) -> None:
        """Replace the end of a candidate that was told as pruned, after its promotion."""
        if not self._grid:
            values, state = list(outcome.objectives) or None, STATES[outcome.state]
            replace_end(self._study, self._asked[number].number, state, values, self._intermediate(outcome))
            self._results += [outcome.objectives] if outcome.objectives else []
            self._value_infeasible()

    def _finished(self, known: KnownCandidate) -> FrozenTrial:
        """Return a candidate of an earlier sweep as a finished trial of this block's study."""
        return create_trial(
            state=STATES[known.outcome.state],
            values=list(known.outcome.objectives) or None,
            params=dict(known.values),
            distributions={name: distribution(self.space[name]) for name in known.values},
            intermediate_values=self._intermediate(known.outcome),
            constraints=dict(self._judge(known.values, 0).excess),
        )

    def _recall(self, known: KnownCandidate, trial: FrozenTrial) -> None:
        """Add a candidate of an earlier sweep to the study."""
        if known.outcome.objectives:
            self._results.append(known.outcome.objectives)
        if self.sweep.search.sampler != "nsga2":
            self._study.add_trial(trial)
            return
        # NSGA-II breeds only from trials that it has assigned to a generation, which it does when they are asked.
        self._study.sampler = self._sampler(0)
        self._study.enqueue_trial(dict(known.values))
        asked = self._study.ask()
        for name in known.values:
            _suggest(asked, name, self.space[name])
        for name, share in trial.constraints.items():
            asked.set_constraint(name, share)
        self._study.tell(asked, trial.values, trial.state)

    def _intermediate(self, outcome: Outcome) -> dict[int, float]:
        """Return the outcome's intermediate values. Optuna refuses them with several objectives."""
        return intermediate_values(self.sweep, outcome) if len(self.sweep.objectives) == 1 else {}

    def _sampler(self, candidate: int, draw: int = 0) -> samplers.BaseSampler:
        return sampler_of(self.sweep, self.block, candidate, draw, self._common, self._source)

    def _one_thread(self) -> AbstractContextManager[Any]:
        """Limit linear algebra to one thread for samplers that use it: the thread count changes the last bits."""
        if self.sweep.search.sampler == "gp":
            import torch  # noqa: F401  # threadpoolctl limits loaded libraries only
        if self.sweep.search.sampler not in ("gp", "cmaes"):
            return nullcontext()
        with kept_process("KMP_DUPLICATE_LIB_OK"):
            from threadpoolctl import threadpool_limits
        return threadpool_limits(1)


def intermediate_values(sweep: SweepConfig, outcome: Outcome) -> dict[int, float]:
    """Return epoch → the first objective's metric at the stage that ends there: Optuna's intermediate values."""
    return {sweep.trial.milestones[stage]: value for stage, value in outcome.stages.items()}


def directions(sweep: SweepConfig) -> list[StudyDirection]:
    """Return the objectives' directions as Optuna's."""
    best, least = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    return [best if objective.mode == "max" else least for objective in sweep.objectives]


def _suggest(trial: Trial, name: str, parameter: Parameter) -> Any:
    match distribution(parameter):
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
        case IntDistribution(low=low, high=high, log=log):
            return trial.suggest_int(name, low, high, log=log)
        case FloatDistribution(low=low, high=high, log=log):
            return trial.suggest_float(name, low, high, log=log)


def _rounded(value: Any, parameter: Parameter) -> Scalar:
    """Round to four significant digits, so that tables print exactly the value that was trained."""
    if parameter.bounds is None or not isinstance(value, float):
        return value
    return min(max(float(f"{value:.4g}"), parameter.bounds[0]), parameter.bounds[1])
