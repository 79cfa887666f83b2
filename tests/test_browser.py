"""MLflow's own pages, served by `python -m kdtune ui`, and a report's page, in a real browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from browser import missing
from helpers import ROOT
from mlflow_pages import look
from tracked import EXPERIMENT, SWEEP, make_trial, write_epoch
from watched import a_record

from kdtune.store import StoreFiles
from kdtune.tracking.publish import Publisher, TrackedTrial
from kdtune.tracking.ranking import ranking
from kdtune.tracking.sweep_text import SweepText

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

#: By name, with their epochs; the pruned one has no late accuracy.
TRIALS = {
    "control": 4,
    "teacher c3d, a good one": 4,
    "0 · r3d18": 4,
    "1 · c3d, deeper": 4,
    "2 · c3d_wide": 4,
    "3 · r21d": 2,
}
BEST_FIRST = ["1 · c3d, deeper", "2 · c3d_wide", "0 · r3d18", "control", "3 · r21d"]
RECORD = a_record(stages={"early": 2, "late": 4}, params=("fraction", "teacher", "lambda", "tau"))


def make_sweep(store: StoreFiles) -> list[TrackedTrial]:
    """A control, three complete candidates, a pruned one, and their teacher. A longer name has a better figure: the
    lengths differ, because MLflow orders equal figures by their start.
    """
    trials = []
    for number, (name, epochs) in enumerate(TRIALS.items()):
        kind = "candidate" if name[0].isdigit() else name.split()[0]
        trial = make_trial(store, number, "complete" if epochs == 4 else "pruned", 0)
        searched = {"lambda": 0.1 * (number + 1), "tau": 2.0 + number} if kind == "candidate" else {"lambda": None}
        tags = {**trial.tags, "kdtune.kind": kind}
        trial = replace(trial, name=name, params={**trial.params, **searched}, tags=tags)
        for epoch in range(1, epochs + 1):
            write_epoch(trial, epoch)
        trials.append(trial)
    return trials


def test_the_pages_show_the_sweep_and_compare_its_trials(tmp_path: Path) -> None:
    store, uri = StoreFiles(tmp_path / "runs"), f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    trials = make_sweep(store)
    publisher = Publisher(
        uri, EXPERIMENT, SweepText(SWEEP, "Which?", "name: lambda_tau\n", ranking=ranking(RECORD)), None
    )
    for trial in trials:
        publisher.update(trial)
    assert publisher.close("complete", timeout_s=120) == []
    # `look` itself waits for names, columns, axes and curves; the pictures are build output.
    folder = ROOT / "build" / "screenshots"
    seen = look(uri, SWEEP, ["lambda", "tau"], "late/validation/knn", folder)

    ranked = seen.texts["ranking"]
    rows = [line.strip() for line in ranked.splitlines()]
    assert [name for name in rows if name in BEST_FIRST] == BEST_FIRST
    assert "teacher c3d" in seen.texts["table"]
    assert "teacher c3d" not in ranked  # its accuracy is of its own stages
    assert seen.axes["charts"] >= {"lambda", "tau"}
    assert seen.axes["compare"] == {"lambda", "tau", "late/validation/knn"}
    assert "Comparing 3 Runs" in seen.texts["compare"]  # The pruned one has no late accuracy.
    assert '"seed": 3' in seen.texts["artifacts"]
    for name in seen.texts:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
