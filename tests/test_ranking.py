"""The view of a sweep's table that kdtune saves with MLflow's experiment; tests/test_browser.py looks at it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from databases import empty_database
from helpers import sweep_of
from tracked import EXPERIMENT, SWEEP, make_trial

from kdtune.execute.driver import sweep_record
from kdtune.store import Store
from kdtune.tracking.publish import Publisher
from kdtune.tracking.ranking import COLUMNS, Ranking, links, ranking, saved_view
from kdtune.tracking.sweep_text import SweepText

KNN = {"metric": "knn", "split": "validation", "stage": "late", "mode": "max", "column": "best_knn", "cost": False}
GMAC = {"metric": "gmac", "split": "validation", "stage": "late", "mode": "min", "column": "gmac", "cost": True}
STAGES = {"early": 2, "a stage: 2": 3, "late": 4}


def shown(ranking: Ranking) -> dict[str, Any]:
    _, value = saved_view("tiny", "4e5", ranking, 1)
    view = json.loads(value)
    assert set(view) == {"name", "createdAt", "updatedAt", "state"}
    return dict(json.loads(view["state"]))


def test_columns_are_what_is_searched_and_the_objective_at_each_stage() -> None:
    found = ranking({"objective": [KNN, GMAC], "stages": STAGES, "params": ["fraction", "lambda"]})
    last, early, other = "late/validation/best_knn", "early/validation/best_knn", "a stage_ 2/validation/best_knn"
    assert found == Ranking(["fraction", "lambda"], [last, early, other], last)
    state = shown(found)
    assert state["selectedColumns"][:3] == ["params.`fraction`", "params.`lambda`", f"metrics.`{last}`"]
    assert (state["orderByKey"], state["orderByAsc"]) == (f"metrics.`{last}`", False)
    parallel, line = state["compareRunCharts"]
    assert parallel["selectedParams"] + parallel["selectedMetrics"] == ["fraction", "lambda", last]
    assert line["selectedMetricKeys"] == ["validation/best_knn"]


def test_a_cost_is_ranked_by_the_objective_the_least_first() -> None:
    found = ranking({"objective": [GMAC, KNN], "stages": STAGES, "params": ["student.width"]})
    assert found == Ranking(["student.width"], ["objective", "late/validation/best_knn"], "objective", ascending=True)
    assert [chart["type"] for chart in shown(found)["compareRunCharts"]] == ["PARALLEL"]


def test_an_older_record_and_a_huge_one() -> None:
    old = {"objective": {name: KNN[name] for name in ("metric", "split", "stage", "mode")}, "stages": {"late": 4}}
    assert ranking(old).decisive == "late/validation/knn"
    assert "tau" in ranking(old).params
    huge = {"objective": [KNN], "stages": {f"stage_{i:03}": i for i in range(99)} | STAGES}
    many = ranking({**huge, "params": [f"finetune.evaluation.something_{i}" for i in range(99)]})
    assert len(many.params) == len(many.metrics) == COLUMNS
    assert many.decisive in many.metrics
    assert len(saved_view("a" * 100, "f" * 32, many, 1)[1]) < 5000


def test_a_sweeps_record_names_params_as_its_runs_do(tmp_path: Path) -> None:
    sweep = sweep_of()
    record = sweep_record(sweep, "", tmp_path / "ledger.jsonl", {})
    assert record["params"] == ["fraction", "teacher", "lambda", "tau", "student.width"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_published_sweep_has_one_link(tmp_path: Path, times: int) -> None:
    uri, trial = (
        empty_database(tmp_path / "mlflow" / "mlflow.db"),
        make_trial(Store(tmp_path / "runs"), 1, "complete", 4),
    )
    for _ in range(times):
        found = ranking({"objective": [KNN], "stages": STAGES})
        publisher = Publisher(uri, EXPERIMENT, SweepText(SWEEP, ranking=found), None)
        publisher.update(trial)
        assert publisher.close("complete", timeout_s=120) == []
    (line,) = links(uri, "http://127.0.0.1:1")
    assert line == f"{SWEEP}: http://127.0.0.1:1/#/experiments/1/runs?viewStateShareKey=kdtune-{SWEEP}"
