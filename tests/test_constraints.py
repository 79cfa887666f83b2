"""Constraints before training: feasible candidates alone are trained, and the sampler learns where they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import fabricated
import optuna
import pytest
import torch
from fabricated import fabricate, usual_figure
from helpers import WINDOW, sweep_of, sweep_results
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.samplers.nsgaii import UniformCrossover
from optuna.trial import TrialState
from schedulers import drive

from kdtune.config.constraints import ConstraintConfig, excesses
from kdtune.config.load import check_sweep
from kdtune.config.space import Scalar
from kdtune.config.sweep import SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import ConfigError
from kdtune.history.events import Outcome
from kdtune.history.reading import read_history
from kdtune.history.trials import sweep_trials
from kdtune.models.heads import build_network
from kdtune.report.results import summary
from kdtune.store import StoreFiles
from kdtune.sweep.feasible import Feasibility, RecordedCosts
from kdtune.sweep.group import TrialGroup
from kdtune.sweep.ledger import Ledger
from kdtune.sweep.prune import dominated, pruning_front
from kdtune.sweep.samplers import seed_of, tpe_settings
from kdtune.sweep.search import Search
from kdtune.train.measuring.before import NetworkCosts
from kdtune.train.measuring.cost import clip_cost
from kdtune.train.prepared import Prepared

SPACE = {"lambda": {"log": [0.05, 5.0]}, "student.width": {"int_log": [4, 64]}}
DISTRIBUTIONS = {"lambda": FloatDistribution(0.05, 5.0, log=True), "student.width": IntDistribution(4, 64, log=True)}
BOUNDS = [{"metric": "parameters", "max": 12_000.0}, {"metric": "gmac", "min": 0.05}]
BLOCK = "fraction=1.0"


class WidthCosts:
    """Costs that follow from the width."""

    def __init__(self) -> None:
        self.measured: list[int] = []

    def shape(self, config: TrialConfig) -> str:
        return str(config.student.width)

    def measure(self, config: TrialConfig, metrics: Collection[str]) -> dict[str, float]:
        self.measured.append(config.student.width)
        costs = {"parameters": 1000.0 * config.student.width, "gmac": 0.01 * config.student.width}
        return {metric: costs[metric] for metric in metrics}


def constrained(**search: Any) -> SweepConfig:
    form = sweep_of(space=SPACE, **search).model_dump(by_alias=True, exclude_unset=True)
    return SweepConfig.model_validate({**form, "constraints": BOUNDS})


def ending(n: int, values: Mapping[str, Scalar]) -> Outcome:
    quality = float(values["lambda"] or 0) + float(values["student.width"] or 0)  # best where nothing is allowed
    return Outcome("complete", ((quality,),), {"early": quality / 2, "mid": quality})


def searched(sweep: SweepConfig, count: int, tmp_path: Path) -> tuple[list[dict[str, Scalar]], list[dict[str, int]]]:
    """Return the first candidates and, for each, how many draws broke which bound before it."""
    block = sweep.blocks()[0]
    costs = RecordedCosts(WidthCosts(), ["parameters", "gmac"], Ledger(tmp_path / "ledger.jsonl"))
    search = Search(sweep, block, judge=Feasibility(sweep, block, costs).judge)
    asked: list[dict[str, Scalar]] = []
    redrawn: list[dict[str, int]] = []
    for n in range(count):
        if n >= WINDOW:
            search.tell(ending(n - WINDOW, asked[n - WINDOW]))
        asked.append(search.ask())
        redrawn.append(dict(search.redrawn))
    return asked, redrawn


def optunas(name: str) -> Callable[[int, int], BaseSampler]:
    def sampler(n: int, draw: int) -> BaseSampler:
        seed = seed_of(0, BLOCK, n, *([f"draw {draw}"] if draw else []))
        if name == "tpe":
            return TPESampler(**tpe_settings(False), seed=seed, n_startup_trials=2)
        if name == "gp":
            return GPSampler(
                seed=seed,
                independent_sampler=RandomSampler(seed=seed),
                n_startup_trials=2,
                deterministic_objective=False,
            )
        return NSGAIISampler(seed=seed, population_size=2, crossover=UniformCrossover(0.5))

    return sampler


def by_hand(name: str, count: int) -> list[dict[str, Any]]:
    """Return what a constrained study asks that somebody builds with Optuna alone."""
    study = optuna.create_study(direction="maximize", sampler=RandomSampler())
    sampler = optunas(name)
    asked, found, unvalued, results = [], [], [], []

    def excess(values: Mapping[str, Any]) -> dict[str, float]:
        width = values["student.width"]
        return {"parameters max": width * 1000 / 12_000 - 1, "gmac min": 1 - 0.01 * width / 0.05}

    def tell_infeasible() -> None:
        while results and unvalued:
            study.tell(unvalued.pop(), fmean(results))

    for n in range(count):
        if n >= WINDOW:
            end = ending(n, found[n - WINDOW])
            for key, value in excess(found[n - WINDOW]).items():
                asked[n - WINDOW].set_constraint(key, value)
            for step, value in ((2, end.stages["early"]), (6, end.stages["mid"])):
                asked[n - WINDOW].report(value, step)
            study.tell(asked[n - WINDOW], end.objective)
            results.append(end.objective)
            tell_infeasible()
        for draw in range(100):
            study.sampler = sampler(n, draw)
            trial = study.ask(DISTRIBUTIONS)
            values = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in trial.params.items()}
            if all(share <= 0 for share in excess(values).values()):
                break
            for key, value in excess(values).items():
                trial.set_constraint(key, value)
            if name == "tpe":
                study.tell(trial, state=TrialState.PRUNED)
            elif name == "nsga2":
                study.tell(trial, 0.0)
            else:
                unvalued.append(trial)
                tell_infeasible()
        asked.append(trial)
        found.append(values)
    return found


@pytest.mark.parametrize("name", ["tpe", "nsga2", pytest.param("gp", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_what_is_asked_is_what_a_constrained_study_of_optuna_asks(name: str, tmp_path: Path) -> None:
    count = 12 if name == "gp" else 24
    asked, redrawn = searched(constrained(sampler=name), count, tmp_path)
    assert asked == by_hand(name, count)
    assert all(5 <= values["student.width"] <= 12 for values in asked)
    broken = {bound for each in redrawn for bound in each}
    assert broken == {"parameters max", "gmac min"}
    assert searched(constrained(sampler=name), count, tmp_path)[0] == asked, "the ledger has the costs"


def test_the_sampler_learns_the_feasible_region(tmp_path: Path) -> None:
    """TPE draws infeasible points less often than chance does, though the objective lures it there."""

    def wasted(sampler: str) -> int:
        redrawn = searched(constrained(sampler=sampler), 40, tmp_path)[1]
        return sum(sum(each.values()) for each in redrawn[10:])

    assert wasted("tpe") < 0.75 * wasted("random")


# ---- a sweep with constraints ----------------------------------------------------------------------------------------


def fabricated_sweep(name: str, **changes: Any) -> SweepConfig:
    space = {"lambda": {"log": [0.05, 5.0]}, "student.width": [4, 8, 16]}
    bounds = [{"metric": "parameters", "max": 8000.0}]
    search = {
        "space": space,
        "blocks": {"teacher": ["c3d"]},
        "seeds": [0],
        "candidates": 6,
        **changes.pop("search", {}),
    }
    return fabricated.sweep_of(search, name=name, **{"constraints": bounds, "prune": {}, **changes})


def test_no_infeasible_candidate_is_trained_and_a_killed_sweep_asks_the_same(tmp_path: Path) -> None:
    sweep = fabricated_sweep("whole", search={"sampler": "tpe", "startup": 2})
    costs = WidthCosts()
    whole = fabricate(StoreFiles(tmp_path / "a"), sweep, usual_figure, costs=costs)
    assert sorted(costs.measured) == sorted(set(costs.measured)), "each shape is measured once"
    widths = [group.asked.values["student.width"] for group in whole.groups.values() if group.kind == "candidate"]
    assert set(widths) == {4, 8}
    assert len(widths) == 6, "infeasible draws take no candidate"
    assert any("broke parameters max" in note for note in whole.notes)
    killed = StoreFiles(tmp_path / "b")
    before, again = WidthCosts(), WidthCosts()
    fabricate(killed, sweep, usual_figure, costs=before, ends=4)
    resumed = fabricate(killed, sweep, usual_figure, costs=again)
    assert before.measured
    assert set(before.measured).isdisjoint(again.measured), "the ledger has them"
    assert [group.asked for group in resumed.groups.values()] == [group.asked for group in whole.groups.values()]
    assert resumed.notes == whole.notes


def test_an_infeasible_point_of_a_grid_is_a_candidate_that_every_reader_shows(tmp_path: Path) -> None:
    store = StoreFiles(tmp_path)
    grid = {"space": {"student.width": [4, 16]}, "sampler": "grid", "candidates": None}
    scheduler = fabricate(store, fabricated_sweep("grid", search=grid), usual_figure, costs=WidthCosts())
    reason = "parameters 16,000 exceeds 8,000 by 100 %"
    assert scheduler.history.complete
    trials = {trial["candidate"]: trial for trial in sweep_results(store, "grid")["trials"]}
    assert [trials[n]["state"] for n in (None, 0, 1)] == ["complete", "complete", "infeasible"]
    assert trials[1]["error"] == reason
    assert trials[1]["epochs"] == 0
    history = read_history(store, "grid")
    assert history.counts()["infeasible"] == 1
    assert history.counts()["failed"] == 0
    assert reason in summary(sweep_trials(store, history), None)
    assert not store.trial(trials[1]["key"]).folder.exists()


def test_a_named_first_point_that_is_infeasible_is_shown_as_such(tmp_path: Path) -> None:
    first = [{"student.width": 16, "lambda": 1.0}, {"student.width": 8}, {"lambda": 2.0}]
    sweep = fabricated_sweep("first", search={"first": first, "sampler": "tpe"})
    scheduler = fabricate(StoreFiles(tmp_path), sweep, usual_figure, costs=WidthCosts())
    candidates = scheduler.history.blocks["teacher=c3d"].candidates
    assert [candidates[n].state for n in (0, 1, 2)] == ["infeasible", "complete", "complete"]
    assert candidates[2].asked.values["lambda"] == 2.0


def test_a_search_without_feasible_points_ends(tmp_path: Path) -> None:
    sweep = fabricated_sweep("none", constraints=[{"metric": "parameters", "max": 1.0}], search={"candidates": 2})
    scheduler = fabricate(StoreFiles(tmp_path), sweep, usual_figure, costs=WidthCosts())
    assert scheduler.history.counts()["infeasible"] == 2
    assert "none of 2 candidates is complete; parameters" in scheduler.barren()[0]


def test_what_ran_out_of_memory_is_infeasible_and_its_size_is_not_asked_again(tmp_path: Path) -> None:
    """Width 16 never fits. It is tried by the candidates that could not know, and by none after them."""

    def outcome(group: TrialGroup) -> Outcome:
        if group.infeasible:
            return Outcome("infeasible", error=group.infeasible)
        if group.kind == "candidate" and group.asked.values["student.width"] == 16:
            return Outcome("infeasible", error="out of memory")
        return Outcome("complete", ((group.configs[0].loss.lambda_,),), {"early": 0.1})

    sweep = fabricated_sweep("memory", constraints=[], search={"sampler": "tpe", "candidates": 30, "window": 2})
    runs = [
        drive(sweep, tmp_path / f"{at_once}.jsonl", at_once=at_once, outcome=outcome, made={}) for at_once in (1, 3)
    ]
    asked = [list(run.history.blocks["teacher=c3d"].candidates.values()) for run in runs]
    assert [group.asked for group in asked[0]] == [group.asked for group in asked[1]]
    large = [group.number for group in asked[0] if group.asked.values["student.width"] == 16]
    assert large
    assert large[-1] - large[0] <= 1, "those of one window"
    assert any("memory" in group.asked.redrawn for group in asked[0])
    stopped: dict[str, Outcome] = {}
    drive(sweep, tmp_path / "killed.jsonl", outcome=outcome, made=stopped, stop_after=20)
    resumed = drive(sweep, tmp_path / "killed.jsonl", outcome=outcome, made=stopped)
    again = [group.asked for group in resumed.history.blocks["teacher=c3d"].candidates.values()]
    assert again == [group.asked for group in asked[0]]
    assert not [note for note in resumed.notes if "would now ask" in note]


def test_pruning_compares_what_several_objectives_know_at_a_stage(tmp_path: Path) -> None:
    """k-NN accuracy and parameters are known at the first stage; a pruned candidate is dominated there."""
    objective = [{"metric": "knn"}, {"metric": "parameters", "mode": "min"}]
    prune = {"at": ["early"], "keep": 0.4, "min_peers": 2}
    search = {"sampler": "random", "candidates": 14, "window": 2}
    sweep = fabricated_sweep("front", objective=objective, prune=prune, constraints=[], search=search)

    def figure(group: TrialGroup, i: int, epoch: int) -> float:
        return 0.1 + 0.02 * epoch + (0.1 * group.configs[i].loss.lambda_ if group.kind == "candidate" else 0.0)

    whole = fabricate(StoreFiles(tmp_path / "a"), sweep, figure, costs=WidthCosts(), prices=["parameters"])
    candidates = [group for _, group in sorted(whole.history.blocks["teacher=c3d"].candidates.items())]
    assert {group.state for group in candidates} == {"complete", "pruned"}
    for n, group in enumerate(candidates):
        known = [other for other in candidates[: max(0, n - 1)] if other.outcome and "early" in other.outcome.points]
        points = [other.outcome.points["early"] for other in known if other.outcome]
        assert list(group.asked.fronts.get("early", ())) == pruning_front(points, sweep.prune)
        assert group.outcome is not None
        point = group.outcome.points["early"]
        values = group.asked.values
        assert point == pytest.approx((0.14 + 0.1 * values["lambda"], -1000 * values["student.width"]), abs=1e-6)
        assert (group.state == "pruned") == dominated(point, group.asked.fronts.get("early", ()))
    store = StoreFiles(tmp_path / "b")
    fabricate(store, sweep, figure, ends=8, costs=WidthCosts(), prices=["parameters"])
    resumed = fabricate(store, sweep, figure, costs=WidthCosts(), prices=["parameters"])
    again = [group for _, group in sorted(resumed.history.blocks["teacher=c3d"].candidates.items())]
    assert [(group.asked, group.outcome) for group in again] == [(group.asked, group.outcome) for group in candidates]
    assert read_history(store, "front").counts() == whole.history.counts()


# ---- costs and configuration -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["r3d", *(pytest.param(b, marks=pytest.mark.slow) for b in ("c3d", "r21d"))])
def test_costs_before_training_are_those_of_a_trained_network(backbone: str, tmp_path: Path) -> None:
    student, clip = {"backbone": backbone, "width": 4}, {"frames": 8, "size": 32}
    config = TrialConfig.model_validate({"student": student, "clip": clip})
    network = build_network(config)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    costs = NetworkCosts(Prepared(StoreFiles(tmp_path)), "cpu").measure(config, ["parameters", "gmac", "clip_ms"])
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
    assert costs["gmac"] == clip_cost(network, torch.zeros(1, 3, 8, 32, 32))[0] / 1e9
    assert costs["parameters"] == sum(p.numel() for m in (network.backbone, network.head) for p in m.parameters())
    assert costs["clip_ms"] > 0


def test_bounds_are_shares_and_words() -> None:
    both = ConstraintConfig(metric="gmac", min=1.0, max=4.0)
    assert excesses([both], {"gmac": 5.0}) == {"gmac max": 0.25, "gmac min": -4.0}
    assert both.words(5.0) == "gmac 5 exceeds 4 by 25 %"
    assert both.words(0.5) == "gmac 0.5 is below 1 by 50 %"
    assert both.words(1.0) == both.words(4.0) == ""
    assert str(both) == "gmac at least 1 and at most 4"


def test_bad_constraints_are_refused_with_all_problems() -> None:
    form = sweep_of().model_dump(by_alias=True, exclude_unset=True)
    bad: list[dict[str, Any]] = [
        {"metric": "knn", "min": 0.5},
        {"metric": "epoch_seconds", "max": 5.0},
        {"metric": "peak_memory", "max": 5.0},
        {"metric": "gmac", "max": 5.0},
        {"metric": "gmac", "max": 6.0},
    ]
    with pytest.raises(ConfigError) as refused:
        check_sweep({**form, "constraints": bad})
    found = [(problem.where.removeprefix("sweep: "), problem.what) for problem in refused.value.problems]
    assert found == [
        ("constraints.0.metric", "is known only after training, got knn"),
        ("constraints.1.metric", "is known only after training, got epoch_seconds"),
        ("constraints.2.metric", "is known only after training, got peak_memory"),
        ("constraints.4.metric", "has a constraint already: give max and min of gmac together"),
    ]
    worse = [{"metric": "gmac"}, {"metric": "gmac", "min": 3.0, "max": 2.0}, {"metric": "wide", "max": -1.0}]
    with pytest.raises(ConfigError) as refused:
        check_sweep({**form, "constraints": worse})
    text = str(refused.value)
    for part in ("needs max or min", "`min <= max` must hold", "constraints.2.metric", "constraints.2.max"):
        assert part in text
