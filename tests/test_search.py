"""A deterministic search (DESIGN 4.4): the threshold of a stage, and what Optuna is told and asked."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Mapping
from fractions import Fraction
from statistics import median

import numpy as np
import optuna
import pytest
import scipy.stats
from _pytest.mark import ParameterSet
from helpers import WINDOW, run_python, sweep_of
from optuna.samplers import TPESampler

from kdtune.config.key import digest
from kdtune.config.search import PruneConfig
from kdtune.config.space import Scalar
from kdtune.config.sweep import SweepConfig
from kdtune.history.events import Outcome
from kdtune.sweep.prune import dominated, pruning_front, pruning_threshold, reaches
from kdtune.sweep.samplers import seed_of, tpe_settings
from kdtune.sweep.search import Search

# ---- the threshold of a stage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("keep", [0.05, 0.28, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("peers", [0, 1, 2, 3, 7, 24])
def test_a_candidate_continues_if_it_is_in_the_best_share(peers: int, keep: float, mode: str) -> None:
    prune = PruneConfig(keep=keep, min_peers=2)
    rng = random.Random(peers)
    values = [rng.randrange(8) / 8 for _ in range(peers)]  # with ties
    level = pruning_threshold(values, prune, mode)
    places = math.ceil(Fraction(str(keep)) * (peers + 1))
    for i in range(-1, 10):
        mine = i / 8
        better = sum(value > mine if mode == "max" else value < mine for value in values)
        assert reaches(mine, level, mode) == (peers < 2 or better < places)


@pytest.mark.parametrize("keep", [0.05, 0.28, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_with_several_objectives_the_best_fronts_continue(objectives: int, keep: float) -> None:
    """A candidate's front is found from the definition: 1 + the longest chain of peers that dominate each other."""
    prune, rng = PruneConfig(keep=keep, min_peers=2), random.Random(objectives)

    def beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))

    def depth(point: tuple[float, ...], peers: list[tuple[float, ...]]) -> int:
        return 1 + max((depth(peer, peers) for peer in peers if beats(peer, point)), default=0)

    for count in (0, 1, 2, 5, 9):
        peers = [tuple(rng.randrange(5) / 4 for _ in range(objectives)) for _ in range(count)]
        front = pruning_front(peers, prune)
        if objectives == 1:
            level = pruning_threshold([value for (value,) in peers], prune, "max")
            assert front == ([] if level is None else [(level,)])
        places = math.ceil(Fraction(str(keep)) * (count + 1))
        for mine in itertools.product([0.0, 0.25, 0.5, 0.75, 1.0], repeat=objectives):
            better = sum(depth(peer, peers) < depth(mine, peers) for peer in peers)
            assert dominated(mine, front) == (count >= 2 and better >= places)


# ---- asking ----------------------------------------------------------------------------------------------------------


def slow(sampler: str) -> ParameterSet:
    """Mark a sampler as slow: it fits a model for each candidate."""
    return pytest.param(sampler, marks=pytest.mark.slow)


SAMPLERS = ("tpe", "random", slow("gp"), "cmaes", "qmc", "nsga2")
#: cmaes learns only ranges, and gp only parameters that every candidate has.
NUMBERS = {"lambda": {"log": [0.05, 5.0]}, "tau": {"range": [1.0, 8.0]}, "student.width": {"int_log": [4, 64]}}


def searched(sweep: SweepConfig, count: int, block: int = 0, outcome: Callable[..., Outcome] | None = None) -> list:
    """Return the first candidates. Each result is told when the window requires, and depends on number and values."""
    search = Search(sweep, sweep.blocks()[block])
    asked: list = []
    for n in range(count):
        if n >= sweep.search.window:
            told = n - sweep.search.window
            search.tell((outcome or ending)(told, asked[told]))
        asked.append(search.ask())
    return asked


#: Digest of the first 24 candidates: an Optuna with other defaults or another algorithm must be noticed.
GOLDEN = {
    "tpe": "50226daa89eac007",
    "random": "92cf62133788b127",
    "gp": "841c97ab6e5b5231",
    "cmaes": "de0a7055c0396641",
    "qmc": "627428b9196539c6",
    "nsga2": "558869c7a540c42a",
}


def ending(n: int, values: Mapping[str, Scalar]) -> Outcome:
    state = ("complete", "pruned", "complete", "complete", "failed")[n % 5]
    quality = -abs(math.log(float(values["lambda"] or 1)) - 1) - abs(float(values.get("tau") or 4) - 4) / 4
    stages = {} if state == "failed" else {"early": quality - 0.5, "mid": quality - 0.1}
    return Outcome(state, ((quality,),) if state == "complete" else (), stages, "mid" if state == "pruned" else None)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_asked_is_a_function_of_history_block_and_number(sampler: str) -> None:
    sweep = sweep_of(sampler=sampler, space=NUMBERS)
    asked = searched(sweep, 14)
    random.seed(5)
    np.random.seed(5)
    assert searched(sweep, 14) == asked
    assert searched(sweep, 9) == asked[:9]
    assert searched(sweep, 14, block=1) != asked
    assert searched(sweep_of(sampler=sampler, space=NUMBERS, seed=1), 14) != asked


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_asked_is_learned_or_not(sampler: str) -> None:
    """Another result of candidate 7 changes only candidates a window later or more, and only if the sampler learns."""

    def otherwise(n: int, values: Mapping[str, Scalar]) -> Outcome:
        return Outcome("complete", ((100.0,),), {"early": 100.0, "mid": 100.0}) if n == 7 else ending(n, values)

    sweep = sweep_of(sampler=sampler, space=NUMBERS)
    asked, other = searched(sweep, 24), searched(sweep, 24, outcome=otherwise)
    assert digest(asked)[:16] == GOLDEN[sampler], f"Optuna {optuna.__version__} asks other candidates than 5.0"
    assert other[: 7 + WINDOW] == asked[: 7 + WINDOW]
    assert (other == asked) == (sampler in ("random", "qmc"))


@pytest.mark.parametrize("sampler", ["tpe", slow("gp"), slow("cmaes")])
def test_another_process_asks_the_same(sampler: str) -> None:
    sweep = sweep_of(sampler=sampler, space=NUMBERS)
    code = f"""
import json, sys
sys.path.insert(0, "tests")
from test_search import searched
from kdtune.config.sweep import SweepConfig
sweep = SweepConfig.model_validate({sweep.model_dump(by_alias=True, exclude_unset=True)!r})
print(json.dumps(searched(sweep, 12)))
"""
    assert json.loads(run_python(code, hash_seed=1).stdout) == searched(sweep, 12)


@pytest.mark.parametrize("sampler", ["tpe", slow("gp"), slow("cmaes"), "nsga2"])
def test_a_sampler_that_learns_comes_nearer_than_chance(sampler: str) -> None:
    """The objective is best at λ = e, τ = 4; half of the later candidates are nearer than half of random ones."""

    def complete(n: int, values: Mapping[str, Scalar]) -> Outcome:
        return Outcome("complete", ((-distance(values),),))

    def distance(values: Mapping[str, Scalar]) -> float:
        return abs(math.log(values["lambda"]) - 1) + abs(values["tau"] - 4) / 4

    def late(name: str) -> float:
        found = []
        for seed in range(3):
            asked = searched(sweep_of(sampler=name, space=NUMBERS, seed=seed), 36, outcome=complete)
            found += [distance(values) for values in asked[16:]]
        return median(found)

    assert late(sampler) < 0.75 * late("random")


@pytest.mark.parametrize("space", [NUMBERS, None])
def test_tpe_asks_what_optunas_own_would(monkeypatch: pytest.MonkeyPatch, space: dict | None) -> None:
    """kdtune finds the parameters that all candidates have in its own way; here `tau` is conditional."""
    sweep = sweep_of() if space is None else sweep_of(space=space)
    asked = searched(sweep, 30)

    def optunas(self: Search, candidate: int, draw: int) -> TPESampler:
        parts = (sweep.search.seed, self.block.label, candidate)
        return TPESampler(**tpe_settings(False), seed=seed_of(*parts), n_startup_trials=sweep.search.startup)

    monkeypatch.setattr(Search, "_sampler", optunas)
    assert searched(sweep, 30) == asked


def test_what_was_recorded_is_what_the_search_learns_from() -> None:
    sweep = sweep_of()
    search = Search(sweep, sweep.blocks()[0])
    first = search.ask()
    recorded = {**first, "lambda": 1.25}  # as an older Optuna would have asked
    other = Search(sweep, sweep.blocks()[0])
    assert other.ask(recorded) == first, "what would be asked now is said"
    (trial,) = [t for t in other._study.get_trials() if t.state.name == "RUNNING"]
    assert trial.params == recorded


def test_pruned_and_failed_candidates_are_told_as_such() -> None:
    sweep = sweep_of()
    search = Search(sweep, sweep.blocks()[0])
    asked = [search.ask() for _ in range(6)]
    ends = [ending(n, values) for n, values in enumerate(asked)]
    for end in ends:
        search.tell(end)
    states = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    trials = search._study.get_trials()
    assert [trial.state.name for trial in trials] == [states[end.state] for end in ends]
    for trial, end, values in zip(trials, ends, asked, strict=True):
        assert trial.params.keys() == values.keys()
        for name, value in values.items():  # in four digits
            assert trial.params[name] == (pytest.approx(value, rel=1e-3) if isinstance(value, float) else value)
        assert trial.intermediate_values == {sweep.trial.stages[stage]: value for stage, value in end.stages.items()}
        assert trial.state.name != "COMPLETE" or trial.values == list(end.objectives)
    assert search._study.direction.name == "MAXIMIZE"


@pytest.mark.parametrize("sampler", ["tpe", "random", slow("gp"), "qmc", "nsga2"])
def test_values_lie_in_the_space_and_read_as_they_are_printed(sampler: str) -> None:
    sweep = sweep_of(sampler=sampler)
    asked = searched(sweep, 40)
    for values in asked:
        assert ("tau" in values) == (values["teacher"] == "c3d")
        assert 0.05 <= values["lambda"] <= 5.0
        assert 1.0 <= values.get("tau", 1.0) <= 8.0
        assert values["student.width"] in (4, 16, 64)
        assert values["lambda"] == float(f"{values['lambda']:.4g}")
    # A genetic search, and one that has converged, ask again for earlier candidates, which are then found.
    assert len({json.dumps(values) for values in asked}) == len(asked) or sampler in ("gp", "nsga2")


def test_conditions_may_hang_on_conditions() -> None:
    space = {
        "teacher": ["c3d", "r21d"],
        "tau": {"choice": [1.0, 4.0], "when": {"teacher": "c3d"}},
        "loss.beta": {"range": [0.0, 1.0], "when": {"teacher": "c3d", "tau": 4.0}},
    }
    asked = searched(sweep_of(space={"lambda": {"log": [0.05, 5.0]}, **space}), 60)
    for values in asked:
        assert ("tau" in values) == (values["teacher"] == "c3d")
        assert ("loss.beta" in values) == (values.get("tau") == 4.0)
    assert {("tau" in v, "loss.beta" in v) for v in asked} == {(False, False), (True, False), (True, True)}


@pytest.mark.parametrize("kind", ["int", "int_log"])
def test_whole_numbers_are_searched_as_such(kind: str) -> None:
    sweep = sweep_of(space={"student.width": {kind: [4, 9]}}, sampler="random")
    search = Search(sweep, sweep.blocks()[0])
    asked = [search.ask()["student.width"] for _ in range(60)]
    assert set(asked) == set(range(4, 10))
    assert all(type(width) is int for width in asked)


def test_a_quasi_random_sequence_fills_the_space_more_evenly() -> None:
    space = {"alpha": {"range": [0.0, 1.0]}, "tau": {"range": [1.0, 2.0]}}

    def discrepancy(sampler: str) -> float:
        asked = searched(sweep_of(sampler=sampler, space=space, window=100), 64)
        return scipy.stats.qmc.discrepancy([[v["alpha"], v["tau"] - 1] for v in asked])

    assert discrepancy("qmc") < 0.3 * discrepancy("random")


def test_a_grid_is_every_combination_in_order() -> None:
    space = {"teacher": ["c3d", "r21d"], "tau": {"choice": [1.0, 4.0], "when": {"teacher": "c3d"}}, "alpha": [0.5, 1.0]}
    sweep = sweep_of(sampler="grid", space=space, candidates=None)
    expected = [{"teacher": "c3d", "tau": t, "alpha": a} for t in (1.0, 4.0) for a in (0.5, 1.0)]
    expected += [{"teacher": "r21d", "alpha": a} for a in (0.5, 1.0)]
    block = sweep.blocks()[0]
    search = Search(sweep, block)
    assert [search.ask() for _ in range(sweep.candidates(block))] == expected


# ---- several objectives ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["tpe", slow("gp"), "nsga2", "random"])
def test_several_objectives_are_searched_deterministically(sampler: str) -> None:
    form = sweep_of(sampler=sampler, space=NUMBERS).model_dump(by_alias=True, exclude_unset=True)
    objective = [{"metric": "knn", "mode": "max"}, {"metric": "gmac", "mode": "min"}]
    sweep = SweepConfig.model_validate({**form, "objective": objective, "prune": {}})

    def both(n: int, values: Mapping[str, Scalar]) -> Outcome:
        if n % 5 == 4:
            return Outcome("failed")
        width = values["student.width"]
        return Outcome("complete", ((width**0.5 + values["lambda"],), (width / 64,)))

    asked = searched(sweep, 16, outcome=both)
    assert searched(sweep, 16, outcome=both) == asked
    search = Search(sweep, sweep.blocks()[0])
    assert [direction.name for direction in search._study.directions] == ["MAXIMIZE", "MINIMIZE"]
