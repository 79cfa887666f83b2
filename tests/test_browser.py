"""MLflow's own pages, started as `python -m kdtune ui` does and looked at in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from browser import missing, picture
from test_tracking import EXPERIMENT, SWEEP, make_trial, publish

from kdtune.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]


def test_the_pages_show_the_sweep_and_compare_its_trials(tmp_path: Path) -> None:
    store, uri = Store(tmp_path / "runs"), f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    trials = [make_trial(store, number, "complete", 4) for number in (1, 2, 3)]
    trials = [*trials, make_trial(store, 4, "pruned", 2)]
    assert publish(uri, tmp_path, trials) == []
    shown: list[str] = []
    # `picture` itself waits for the runs' names in the table and for the axes of the chart.
    files = picture(uri, EXPERIMENT, ["lambda"], "late/validation/knn", tmp_path / "mlflow.png", seen=shown)
    table, comparison = shown
    for text in (EXPERIMENT, SWEEP, *(trial.name for trial in trials), "late/validation/k"):
        assert text in table
    assert "Comparing 3 Runs" in comparison  # The pruned one has no late accuracy.
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG")
