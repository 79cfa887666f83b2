"""Tables: what a reader is told of controls, gains, majority baselines and pruned candidates, in every format."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from kdtune.report.results import best_of, mixed_profiles
from kdtune.report.tables import FORMATS, render, summary

SWEEP = {
    "blocks": {"fraction=1.0": 3, "fraction=0.25": 1},
    "stages": {"early": 2, "late": 8},
    "objective": {"metric": "knn", "column": "knn", "split": "validation", "stage": "late", "mode": "max"},
}


def trial(number: int | None, late: float | None, *, block: str = "fraction=1.0", seed: int = 0) -> dict[str, Any]:
    """A trial: a control if `number` is None, pruned at the early stage if `late` is None."""
    reached = {"early": 0.3} | ({} if late is None else {"late": late})
    scores = {s: {"knn": v, "linear": v, "pretext": v, "action_majority": 0.125} for s, v in reached.items()}
    return {
        "key": f"key-{block}-{number}-{seed}",
        "candidate": number,
        "block": block,
        "control": number is None,
        "seed": seed,
        "params": {
            "student": "r3d",
            "teacher": "none" if number is None else "c3d",
            "lambda": None if number is None else 0.25,
            "tau": None if number is None else 4.0,
            "alpha": 0.5,
            "fraction": 1.0,
        },
        "state": "pruned" if late is None else "complete",
        "epochs": 2 if late is None else 8,
        "stages": {stage: {"validation": values, "test": values} for stage, values in scores.items()},
        "objective": late,
        "weights_sha256": "0" * 64,
        "seconds": 1.0,
        "cached": False,
        "cost": None,
        "profile": None,
        "mlflow_run_id": None,
        "error": None,
    }


TRIALS = [
    trial(None, 0.4),
    trial(0, 0.35),
    trial(1, None),
    trial(2, 0.5),
    trial(None, 0.2, block="fraction=0.25"),
    trial(0, 0.9, block="fraction=0.25"),
]


@pytest.fixture
def results() -> dict[str, Any]:
    best = {block: best_of(TRIALS, block, SWEEP) for block in SWEEP["blocks"]}
    return {"sweep": "s", "trials": TRIALS, "best": best}


def line(text: str, start: str) -> list[str]:
    """Return the cells of the first line that starts with `start`."""
    return next(row for row in text.splitlines() if row.startswith(start)).split()


def test_gains_are_against_the_control_of_the_same_block(results: dict[str, Any]) -> None:
    first, second = render(results, SWEEP, "table").split("\n\n")
    assert line(first, "2 ")[6:] == ["0.300", "0.500", "+10.0", "complete"]
    assert line(first, "0 ")[6:] == ["0.300", "0.350", "-5.0", "complete"]
    assert line(second, "0 ")[6:] == ["0.300", "0.900", "+70.0", "complete"]


def test_candidates_stand_by_objective_and_pruned_ones_last(results: dict[str, Any]) -> None:
    first = render(results, SWEEP, "table").split("\n\n")[0].splitlines()
    assert [row.split()[0] for row in first[3:]] == ["control", "2", "0", "1"]
    assert first[-1].endswith("pruned at early")
    assert "(majority baseline 0.125)" in first[0]


def test_the_summary_names_every_candidate_that_it_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [trial(None, 0.4), *(trial(n, 0.5 - n / 100) for n in range(6)), trial(6, None), trial(7, None)]
    text = summary({"trials": many, "best": {}}, {**SWEEP, "blocks": {"fraction=1.0": 8}})
    assert text.endswith("… and 3 more: 5 complete; 6, 7 pruned at early")


def test_a_block_s_best_is_its_own_and_the_lower_number_wins_a_tie() -> None:
    tied = [trial(0, 0.5), trial(1, 0.5), trial(2, 0.4)]
    assert best_of(tied, "fraction=1.0", SWEEP) is tied[0]
    assert best_of(TRIALS, "fraction=0.25", SWEEP) is TRIALS[5]
    assert best_of([trial(0, None)], "fraction=1.0", SWEEP) is None


def test_a_candidate_s_mean_over_its_seeds_decides() -> None:
    seeds = [trial(0, 0.9, seed=0), trial(0, 0.1, seed=1), trial(1, 0.6, seed=0), trial(1, 0.6, seed=1)]
    assert best_of(seeds, "fraction=1.0", SWEEP) is seeds[2]


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_holds_every_trial(results: dict[str, Any], form: str) -> None:
    text = render(results, SWEEP, form)
    if form == "json":
        assert json.loads(text) == results
    elif form == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [row["key"] for row in rows] == [t["key"] for t in TRIALS]
        assert rows[2]["late.validation.knn"] == ""
    else:
        assert text.count("complete") == 5
        assert text.count("pruned at early") == 1


def test_costs_are_columns(results: dict[str, Any]) -> None:
    cost = {"parameters": 229085, "gmac": 0.019, "peak_memory": 20.5, "clip_ms": 2.25, "epoch_seconds": 0.5}
    trials = [{**TRIALS[0], "cost": cost}, *TRIALS[1:]]
    rows = list(csv.DictReader(io.StringIO(render({**results, "trials": trials}, SWEEP, "csv"))))
    assert {name: float(rows[0][f"cost.{name}"]) for name in cost} == cost
    assert {rows[2][f"cost.{name}"] for name in cost} == {""}, "stopped early, or from before costs were measured"
    assert "cost" not in rows[0]


def test_mixed_profiles_are_said() -> None:
    profile = {"device": "a CPU", "torch": "2.15", "cuda": None, "frames": "f", "threads": 1, "precision": "fp32"}

    def ran(*profiles: dict[str, Any] | None) -> str | None:
        return mixed_profiles([{**trial(0, 0.5), "profile": each} for each in profiles])

    own = {"frames": "of another block", "threads": 2, "precision": "bf16"}
    assert ran(profile, None, profile, {**profile, **own}) is None
    said = ran(profile, {**profile, "torch": "2.11", "cuda": "13.0"}, profile) or ""
    assert "several profiles (cuda None | 13.0; torch 2.15 | 2.11)" in said
    resumed = {
        **trial(0, 0.5),
        "profile": profile,
        "earlier_profiles": [{"epoch": 1, "profile": {**profile, "torch": "2.11"}}],
    }
    assert "torch 2.11 | 2.15" in (mixed_profiles([resumed]) or "")
