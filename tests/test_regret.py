"""`report` of a sweep that was really run: the number of videos behind its figures, and `--regret` on real trials."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import CPU, sweep_results

from kdtune.api.reporting import make_report
from kdtune.errors import EXIT_OK
from kdtune.execute.in_process import InProcess
from kdtune.history.reading import read_history
from kdtune.history.videos import videos_of
from kdtune.report.stops import chosen_stops
from kdtune.store import StoreFiles
from kdtune.store.files import read_json
from kdtune.train.session import Session
from sweeps import run

pytestmark = pytest.mark.slow


def test_pruned_trials_are_finished_as_they_would_have_been(sweep_form: dict[str, Any], tmp_path: Path) -> None:
    search = {**sweep_form["search"], "candidates": 6}
    form = {
        **sweep_form,
        "search": search,
        "objective": {"metric": "pretext_loss", "mode": "min"},
        "prune": {**sweep_form["prune"], "keep": 0.3},
    }
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(form, sort_keys=False))
    end, said = run(file, tmp_path / "runs", InProcess())
    assert end.exit_code == EXIT_OK, said
    store = StoreFiles(tmp_path / "runs")
    before = sweep_results(store, "tiny")
    # The training list has 4 groups of 4 motions × 2 clips; a third is kept for validation: one or two groups.
    videos = videos_of(store, read_history(store, "tiny"))
    share = before["trials"][0]["stages"]["late"]["validation"]["pretext"]
    assert all(found["test"] == 8 for found in videos.values()), "one group of five"
    answers = [5 * share * found["validation"] for found in videos.values()]  # each video is asked under five labels
    assert answers == pytest.approx([round(answer) for answer in answers])

    name, trials = next(chosen_stops(read_history(store, "tiny"), 1))
    assert all(store.trial(key).result() is None for key, _ in trials)
    page = make_report(store, "tiny", regret=1, device="cpu")[0].read_text()
    assert "1 pruned candidates were trained to their end" in page
    rows = list(csv.DictReader((store.report("tiny") / "tables" / "stops.csv").read_text().splitlines()))
    assert [f"{row['block']} · {row['trial']}" for row in rows] == [name]
    assert sweep_results(store, "tiny")["trials"] == before["trials"], "the sweep's own figures stay what they were"

    # The same trial, trained in one go elsewhere, has the same bits.
    ((key, config),) = trials
    elsewhere = Session(StoreFiles(tmp_path / "elsewhere"))
    elsewhere.prepare(config)
    for _ in elsewhere.trial(config, CPU):
        pass
    result = read_json(elsewhere.files(config).folder / "result.json")
    assert result["weights_sha256"] == (store.trial(key).result() or {})["weights_sha256"]

    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "trials").rglob("*") if path.is_file()}
    assert make_report(store, "tiny", regret=1, device="cpu")[0].read_text() == page
    assert written == {path: path.stat().st_mtime_ns for path in written}, "found, not trained again"
