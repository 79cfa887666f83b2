"""The view of a sweep's table that kdtune saves with MLflow's experiment; tests/test_browser.py looks at it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from databases import empty_database
from helpers import sweep_of
from tracked import EXPERIMENT, SWEEP, make_trial
from watched import GMAC, a_record

from kdtune.history.metric import MetricSpec
from kdtune.history.record import SweepRecord
from kdtune.store import StoreFiles
from kdtune.tracking.publish import Publisher
from kdtune.tracking.ranking import COLUMNS, Ranking, links, ranking, saved_view
from kdtune.tracking.sweep_text import SweepText

KNN = MetricSpec("knn", "validation", "late", "max", "best_knn")
STAGES = {"early": 2, "a stage: 2": 3, "late": 4}


def shown(ranking: Ranking) -> dict[str, Any]:
    _, value = saved_view("tiny", "4e5", ranking, 1)
    view = json.loads(value)
    assert set(view) == {"name", "createdAt", "updatedAt", "state"}
    return dict(json.loads(view["state"]))


def test_columns_are_what_is_searched_and_the_objective_at_each_stage() -> None:
    found = ranking(a_record(objectives=(KNN, GMAC), stages=STAGES, params=("fraction", "lambda")))
    last, early, other = "late/validation/best_knn", "early/validation/best_knn", "a stage_ 2/validation/best_knn"
    assert found == Ranking(("fraction", "lambda"), [last, early, other], last)
    state = shown(found)
    assert state["selectedColumns"][:3] == ["params.`fraction`", "params.`lambda`", f"metrics.`{last}`"]
    assert (state["orderByKey"], state["orderByAsc"]) == (f"metrics.`{last}`", False)
    parallel, line = state["compareRunCharts"]
    assert parallel["selectedParams"] + parallel["selectedMetrics"] == ["fraction", "lambda", last]
    assert line["selectedMetricKeys"] == ["validation/best_knn"]


def test_a_cost_is_ranked_by_the_objective_the_least_first() -> None:
    found = ranking(a_record(objectives=(GMAC,), stages=STAGES, params=("student.width",)))
    assert found == Ranking(("student.width",), ["objective"], "objective", ascending=True)
    assert [chart["type"] for chart in shown(found)["compareRunCharts"]] == ["PARALLEL"]


def test_a_fine_tuned_sweep_shows_top_1_and_no_more_columns_than_fit() -> None:
    pretext, stages = MetricSpec("pretext", "validation", "late", "max", "pretext"), {**STAGES, "finetune": 8}
    found = ranking(a_record(objectives=(pretext,), stages=stages, params=tuple("abcdefgh")))
    assert found.metrics[-1] == "finetune/validation/top1"
    assert len(shown(found)["selectedColumns"]) == 5 + 4 + 1
    assert shown(found)["compareRunCharts"][0]["selectedParams"] == list("abcdefgh")


def test_beside_a_cost_the_table_is_ranked_by_what_gains_are_said_of() -> None:
    assert ranking(a_record(objectives=(GMAC, KNN), stages=STAGES)).decisive == "late/validation/best_knn"


def test_a_huge_record() -> None:
    many = ranking(
        a_record(
            objectives=(KNN,),
            stages={f"stage_{i:03}": i for i in range(99)} | STAGES,
            params=tuple(f"finetune.evaluation.something_{i}" for i in range(99)),
        )
    )
    assert len(many.params) == len(many.metrics) == COLUMNS
    assert many.decisive in many.metrics
    assert len(saved_view("a" * 100, "f" * 32, many, 1)[1]) < 5000


def test_a_sweeps_record_names_params_as_its_runs_do() -> None:
    sweep = sweep_of()
    record = SweepRecord.of(sweep, "ledger.jsonl", "", {})
    assert record.params == ("fraction", "teacher", "lambda", "tau", "student.width")


@pytest.mark.parametrize("times", [1, 2])
def test_a_published_sweep_has_one_link(tmp_path: Path, times: int) -> None:
    uri, trial = (
        empty_database(tmp_path / "mlflow" / "mlflow.db"),
        make_trial(StoreFiles(tmp_path / "runs"), 1, "complete", 4),
    )
    for _ in range(times):
        found = ranking(a_record(objectives=(KNN,), stages=STAGES))
        publisher = Publisher(uri, EXPERIMENT, SweepText(SWEEP, ranking=found), None)
        publisher.update(trial)
        assert publisher.close("complete", timeout_s=120) == []
    (line,) = links(uri, "http://127.0.0.1:1")
    assert line == f"{SWEEP}: http://127.0.0.1:1/#/experiments/1/runs?viewStateShareKey=kdtune-{SWEEP}"
