"""What a search starts from: earlier sweeps (`search.from`) and points to try first (`search.first`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from fabricated import FORM, fabricate, sweep_of, usual_figure
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.samplers.nsgaii import UniformCrossover
from optuna.trial import FrozenTrial, create_trial
from schedulers import key_of

from kdtune.config.load import check_sweep
from kdtune.config.sweep import SweepConfig
from kdtune.errors import ConfigError
from kdtune.history.reading import read_history
from kdtune.store import StoreFiles
from kdtune.sweep.earlier import known_candidates
from kdtune.sweep.ledger import Ledger
from kdtune.sweep.samplers import seed_of, tpe_settings

NARROW = {"teacher": ["c3d"], "lambda": {"log": [0.5, 2.0]}, "tau": {"range": [2.0, 6.0]}}
WIDE = {"teacher": ["c3d", "r21d"], "lambda": {"log": [0.05, 5.0]}, "tau": {"range": [1.0, 8.0]}}
RANGES = {name: WIDE[name] for name in ("lambda", "tau")}
DISTRIBUTIONS = {
    "teacher": CategoricalDistribution(["c3d", "r21d"]),
    "lambda": FloatDistribution(0.05, 5.0, log=True),
    "tau": FloatDistribution(1.0, 8.0),
}
WINDOW = 2


def learning(name: str, **search: Any) -> SweepConfig:
    return sweep_of({"space": WIDE, "sampler": "tpe", "startup": 3, "seeds": [0, 1], **search}, name=name)


def earlier(store: StoreFiles, **search: Any) -> SweepConfig:
    sweep = learning("a", space=NARROW, sampler="random", candidates=6, **search)
    fabricate(store, sweep, usual_figure)
    return sweep


def finished(store: StoreFiles, sweep: str, block: str) -> list[FrozenTrial]:
    """Return the ended candidates of a sweep as Optuna's trials in the wide space."""
    history = read_history(store, sweep)
    found = []
    for _, group in sorted(history.blocks[block].candidates.items()):
        assert group.outcome is not None
        state = optuna.trial.TrialState[group.outcome.state.upper()]
        epochs = {"early": 2, "mid": 6, "late": 8}
        found.append(
            create_trial(
                state=state,
                value=group.outcome.objective,
                params=dict(group.asked.values),
                distributions={name: DISTRIBUTIONS[name] for name in group.asked.values},
                intermediate_values={epochs[stage]: value for stage, value in group.outcome.stages.items()},
            )
        )
    return found


def by_hand(
    sampler: Callable[[int], BaseSampler],
    names: Sequence[str],
    known: Sequence[FrozenTrial],
    ended: Sequence[FrozenTrial],
    first: Sequence[dict[str, Any]] = (),
    *,
    told: bool = False,
) -> list[dict[str, Any]]:
    """Return what a study asks that somebody builds with Optuna alone; `ended` are the candidates' own ends."""
    study = optuna.create_study(direction="maximize", sampler=RandomSampler())
    for trial in known:
        if told:  # NSGA-II knows only what it has asked
            study.sampler = sampler(0)
            study.enqueue_trial(trial.params)
            asked = study.ask(dict(trial.distributions))
            study.tell(asked, trial.value if trial.state.name == "COMPLETE" else None, trial.state)
        else:
            study.add_trial(trial)
    asked_trials, found = [], []
    for n in range(len(ended)):
        if n >= WINDOW:
            end = ended[n - WINDOW]
            for step, value in end.intermediate_values.items():
                asked_trials[n - WINDOW].report(value, step)
            study.tell(asked_trials[n - WINDOW], end.value if end.state.name == "COMPLETE" else None, end.state)
        study.sampler = sampler(n)
        if n < len(first):
            study.enqueue_trial(first[n])
        asked_trials.append(study.ask({name: DISTRIBUTIONS[name] for name in names}))
        given = first[n] if n < len(first) else {}
        drawn = asked_trials[-1].params
        found.append({k: v if k in given or isinstance(v, str) else float(f"{v:.4g}") for k, v in drawn.items()})
    return found


def tpe(block: str) -> Callable[[int], BaseSampler]:
    return lambda n: TPESampler(**tpe_settings(False), seed=seed_of(0, block, n), n_startup_trials=3)


@pytest.mark.parametrize("block", ["fraction=1.0", "fraction=0.25"])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_wider_search_asks_what_optuna_asks_of_a_study_with_the_earlier_trials(tmp_path: Path, block: str) -> None:
    store = StoreFiles(tmp_path)
    earlier(store)
    first = [{"lambda": 1.0, "tau": 4.0}, {"teacher": "r21d"}]
    fabricate(store, learning("b", **{"from": ["a"]}, first=first, candidates=8), usual_figure)
    ended, known = finished(store, "b", block), finished(store, "a", block)
    assert {trial.state.name for trial in known} == {"COMPLETE", "PRUNED"}
    asked = [trial.params for trial in ended]
    assert asked == by_hand(tpe(block), list(WIDE), known, ended, first)
    assert asked[0]["lambda"] == 1.0
    assert asked[1]["teacher"] == "r21d"
    assert asked != by_hand(tpe(block), list(WIDE), [], ended, first), "what is known changes nothing"


@pytest.mark.parametrize("sampler", ["nsga2", "cmaes"])
@pytest.mark.parametrize("candidates", [6, 24])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_other_samplers_learn_as_far_as_optuna_allows(tmp_path: Path, sampler: str, candidates: int) -> None:
    """NSGA-II breeds from earlier trials; CMA-ES starts around the best of a few, or from the best tenth of many."""
    store = StoreFiles(tmp_path)
    narrow = {"lambda": NARROW["lambda"], "tau": NARROW["tau"]}
    options = {"blocks": {"teacher": ["c3d"]}, "seeds": [0]}
    fabricate(store, learning("a", space=narrow, sampler="random", candidates=candidates, **options), usual_figure)
    search = {"space": RANGES, "sampler": sampler, "from": ["a"], "candidates": 8, "startup": 4}
    fabricate(store, learning("b", **search, **options), usual_figure)
    ended, known = finished(store, "b", "teacher=c3d"), finished(store, "a", "teacher=c3d")
    complete = [trial for trial in known if trial.state.name == "COMPLETE"]

    def optunas(n: int) -> BaseSampler:
        seed = seed_of(0, "teacher=c3d", n)
        if sampler == "nsga2":
            return NSGAIISampler(seed=seed, population_size=4, crossover=UniformCrossover(0.5))
        best = max(complete, key=lambda trial: trial.value)
        source = [best] * 10 if len(complete) < 10 else complete
        return CmaEsSampler(
            seed=seed, independent_sampler=RandomSampler(seed=seed), n_startup_trials=4, source_trials=source
        )

    hand = by_hand(optunas, list(RANGES), known, ended, told=sampler == "nsga2")
    assert [trial.params for trial in ended] == hand
    assert (len(complete) < 10) == (candidates == 6)


def known_of(store: StoreFiles, sweep: SweepConfig) -> tuple[Ledger, list[str]]:
    ledger = Ledger(store.sweep(sweep.name).ledger(sweep.ledger))
    return ledger, list(known_candidates(sweep, ledger, store, key_of))


def test_what_was_told_is_recorded_and_a_grown_sweep_changes_nothing(tmp_path: Path) -> None:
    store = StoreFiles(tmp_path)
    earlier(store)
    sweep = learning("b", **{"from": "compatible"}, candidates=6)
    scheduler = fabricate(store, sweep, usual_figure, ends=7)  # killed in the middle
    before = [group.asked for group in scheduler.groups.values() if group.kind == "candidate"]
    fabricate(store, learning("a", space=NARROW, sampler="random", candidates=12), usual_figure)
    ledger, said = known_of(store, sweep)
    assert said == []
    assert ledger.known is not None
    assert len(ledger.known.candidates) == 12, "six in each block"
    scheduler = fabricate(store, sweep, usual_figure)
    assert [group.asked for group in scheduler.groups.values() if group.kind == "candidate"][: len(before)] == before
    assert scheduler.notes == []
    assert read_history(store, "b").known == ledger.known
    fresh = learning("c", **{"from": ["a"]}, candidates=6)
    assert known_of(store, fresh)[0].known != ledger.known


def test_a_sweep_learns_from_what_its_own_file_found_before_it_changed(tmp_path: Path) -> None:
    store = StoreFiles(tmp_path)
    earlier(store)
    ledger, said = known_of(store, learning("a", **{"from": ["a"]}))
    assert ledger.known is not None
    assert len(ledger.known.candidates) == 12
    (line,) = said
    complete = sum(known.outcome.state == "complete" for known in ledger.known.candidates)
    assert f"12 candidates of a are known before candidate 0 ({complete} complete, {12 - complete} pruned)" in line


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"trial": {"epochs": 9, "stages": {"early": 2, "mid": 6, "late": 9}}}, "that differ in epochs (8, here 9)"),
        ({"trial": {**FORM["trial"], "optimizer": {"lr": 0.5}}}, "that differ in optimizer.lr"),
        ({"teachers": {"c3d": {"student": {"backbone": "c3d", "width": 5}}}}, "another teacher"),
        ({"objective": {"metric": "f1", "stage": "late"}}, "without a result"),
    ],
)
def test_results_of_other_settings_are_refused_with_the_difference(tmp_path: Path, changes: dict, why: str) -> None:
    store = StoreFiles(tmp_path)
    earlier(store)
    form = learning("b", **{"from": ["a", "aa"]}, space=NARROW).model_dump(by_alias=True, exclude_unset=True)
    with pytest.raises(ConfigError) as refused:
        known_of(store, SweepConfig.model_validate({**form, **changes}))
    first, second = refused.value.problems
    assert first.where == "search.from.0"
    assert why in first.what
    assert second.where == "search.from.1"
    assert "holds no sweep named 'aa', did you mean a?" in second.what


def test_a_part_of_the_earlier_candidates_is_used_and_the_rest_is_said(tmp_path: Path) -> None:
    store = StoreFiles(tmp_path)
    earlier(store)
    ledger, (said,) = known_of(store, learning("b", space={**WIDE, "lambda": {"log": [0.5, 1.0]}}, **{"from": ["a"]}))
    assert ledger.known is not None
    assert 0 < len(ledger.known.candidates) < 12
    assert all(known.values["lambda"] <= 1 for known in ledger.known.candidates)
    assert f"{12 - len(ledger.known.candidates)} with values outside this space" in said


def test_a_parameter_that_is_searched_only_now_has_its_earlier_value(tmp_path: Path) -> None:
    store = StoreFiles(tmp_path)
    earlier(store)
    ledger, _ = known_of(store, learning("b", space={**WIDE, "optimizer.lr": {"log": [0.001, 1.0]}}, **{"from": ["a"]}))
    assert ledger.known is not None
    rate = sweep_of().trial.optimizer.lr
    assert [known.values["optimizer.lr"] for known in ledger.known.candidates] == [rate] * 12


def test_bad_starts_are_refused_with_all_problems() -> None:
    first = [{"lambda": 9.0}, {"width": 3}, {}, {"tau": 2.0}, {"tau": 2.0}, {"teacher": "none", "lambda": True}]
    form = learning("b").model_dump(by_alias=True, exclude_unset=True)
    form["search"] |= {"first": first, "sampler": "random", "from": ["a", "a"], "candidates": 5}
    with pytest.raises(ConfigError) as refused:
        check_sweep(form)
    places = {problem.where.removeprefix("sweep: "): problem for problem in refused.value.problems}
    assert set(places) == {
        "search.from",
        "search.first",
        "search.first.0.lambda",
        "search.first.1.width",
        "search.first.2",
        "search.first.4",
        "search.first.5.teacher",
        "search.first.5.lambda",
    }
    assert places["search.first.0.lambda"].allowed == "log: [0.05, 5.0]"
    conditional = {**WIDE, "tau": {"range": [1.0, 8.0], "when": {"teacher": "c3d"}}}
    for wrong in ({"sampler": "grid", "first": [{"tau": 2.0}]}, {"space": conditional, "first": [{"tau": 2.0}]}):
        with pytest.raises(ConfigError, match=r"search\.first"):
            check_sweep({**form, "search": {**form["search"], "from": [], **wrong}})
    with pytest.raises(ConfigError, match="should be compatible or a valid list"):
        check_sweep({**form, "search": {**form["search"], "first": [], "sampler": "tpe", "from": "same"}})
