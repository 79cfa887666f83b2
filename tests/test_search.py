"""A search that is deterministic, too (DESIGN 4.4): the bar of a stage, and what Optuna is told and asked."""

from __future__ import annotations

import json
import math
import random
from fractions import Fraction

import optuna
import pytest
from helpers import run_python, sweep_of

from kdtune.config.sweep import Block, PruneConfig, SweepConfig
from kdtune.sweep import search
from kdtune.sweep.prune import bar, clears
from kdtune.sweep.search import Finished, ask

# ---- the bar of a stage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("keep", [0.05, 0.28, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("peers", [0, 1, 2, 3, 7, 24])
def test_a_candidate_goes_on_if_it_is_in_the_best_share(peers: int, keep: float, mode: str) -> None:
    prune = PruneConfig(keep=keep, min_peers=2)
    rng = random.Random(peers)
    values = [rng.randrange(8) / 8 for _ in range(peers)]  # with ties
    level = bar(values, prune, mode)
    places = math.ceil(Fraction(str(keep)) * (peers + 1))
    for i in range(-1, 10):
        mine = i / 8
        better = sum(value > mine if mode == "max" else value < mine for value in values)
        assert clears(mine, level, mode) == (peers < 2 or better < places)


# ---- asking ----------------------------------------------------------------------------------------------------------


def history(sweep: SweepConfig, count: int) -> list[Finished]:
    states = ("complete", "pruned", "complete", "failed")
    told = []
    for n in range(count):
        values, state = ask(sweep, sweep.blocks()[0], n, []), states[n % 4]
        stages = {} if state == "failed" else {2: 0.1 * n, 6: 0.2 * n}
        told.append(Finished(values, state, 0.3 * n if state == "complete" else None, stages))
    return told


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_what_is_asked_is_a_function_of_history_block_and_number(sampler: str) -> None:
    sweep = sweep_of(sampler=sampler)
    block, other = sweep.blocks()
    past = history(sweep, 6)
    first = ask(sweep, block, 9, past)
    for n in (3, 8, 10):  # something else is asked in between
        assert ask(sweep, block, n, past[: n - 3]) != first
    random.seed(5)
    assert ask(sweep, block, 9, past) == first
    assert ask(sweep, other, 9, past) != first
    assert ask(sweep_of(sampler=sampler, seed=1), block, 9, past) != first
    # Its place among the blocks is no matter, its values are.
    assert ask(sweep, Block(7, block.values), 9, past) == first
    if sampler == "tpe":
        assert any(ask(sweep, block, n, past) != ask(sweep, block, n, past[::-1][:3]) for n in range(5))


def test_another_process_asks_the_same() -> None:
    sweep = sweep_of()
    past = history(sweep, 6)
    told = [(dict(f.values), f.state, f.objective, dict(f.stages)) for f in past]
    code = f"""
import json
from kdtune.config.sweep import SweepConfig
from kdtune.sweep.search import Finished, ask
sweep = SweepConfig.model_validate({sweep.model_dump(by_alias=True, exclude_unset=True)!r})
print(json.dumps(ask(sweep, sweep.blocks()[0], 9, [Finished(*told) for told in {told!r}])))
"""
    answers = [json.loads(run_python(code, hash_seed=salt).stdout) for salt in (1, 2)]
    assert answers == [ask(sweep, sweep.blocks()[0], 9, past)] * 2


def test_pruned_and_failed_candidates_are_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    studies = []
    create = optuna.create_study

    def spy(**arguments: object) -> optuna.Study:
        studies.append(create(**arguments))
        return studies[-1]

    sweep = sweep_of()
    past = history(sweep, 4)
    monkeypatch.setattr(search.optuna, "create_study", spy)
    ask(sweep, sweep.blocks()[0], 8, past)
    states = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    trials = studies[0].get_trials()[:4]
    assert [trial.state.name for trial in trials] == [states[f.state] for f in past]
    for trial, finished in zip(trials, past, strict=True):
        assert trial.params == dict(finished.values)
        assert trial.intermediate_values == dict(finished.stages)
        assert trial.state.name != "COMPLETE" or trial.value == finished.objective
    assert studies[0].direction.name == "MAXIMIZE"


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_values_lie_in_the_space_and_read_as_they_are_printed(sampler: str) -> None:
    sweep = sweep_of(sampler=sampler)
    past = history(sweep, 6)
    asked = [ask(sweep, sweep.blocks()[0], n, past) for n in range(40)]
    for values in asked:
        assert ("tau" in values) == (values["teacher"] == "c3d")
        assert 0.05 <= values["lambda"] <= 5.0
        assert 1.0 <= values.get("tau", 1.0) <= 8.0
        assert values["student.width"] in (4, 16, 64)
        assert values["lambda"] == float(f"{values['lambda']:.4g}")
    assert len({json.dumps(values) for values in asked}) == len(asked)


def test_whole_numbers_are_searched_as_such() -> None:
    sweep = sweep_of(space={"student.width": {"int": [4, 9]}})
    asked = [ask(sweep, sweep.blocks()[0], n, [])["student.width"] for n in range(60)]
    assert set(asked) == set(range(4, 10))
    assert all(type(width) is int for width in asked)


def test_a_grid_is_every_combination_in_order() -> None:
    space = {"teacher": ["c3d", "r21d"], "tau": {"choice": [1.0, 4.0], "when": {"teacher": "c3d"}}, "alpha": [0.5, 1.0]}
    sweep = sweep_of(sampler="grid", space=space, candidates=None)
    expected = [{"teacher": "c3d", "tau": t, "alpha": a} for t in (1.0, 4.0) for a in (0.5, 1.0)]
    expected += [{"teacher": "r21d", "alpha": a} for a in (0.5, 1.0)]
    block = sweep.blocks()[0]
    assert [ask(sweep, block, n, []) for n in range(sweep.candidates(block))] == expected
