"""A whole sweep on real video files, its resume, its failures and its results."""

from __future__ import annotations

import copy
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import run_python, sweep_results

from kdtune.errors import EXIT_OK, UserError
from kdtune.execute.books import Ending
from kdtune.store import TARGET_COUNTS, StoreFiles
from kdtune.store.files import append_jsonl, read_json, write_json
from sweeps import outcome, run


def test_a_sweep_trains_teachers_controls_and_candidates(swept: tuple[Path, Ending]) -> None:
    store, end = swept
    results = sweep_results(StoreFiles(store), "tiny")
    trials = results["trials"]
    assert end.trained == 2 + 2 + 8
    assert [t["control"] for t in trials].count(True) == 2
    assert all(t["state"] == "complete" for t in trials if t["control"]), "controls are never pruned"
    candidates = [t for t in trials if not t["control"]]
    assert {t["state"] for t in candidates} <= {"complete", "pruned"}
    assert {t["params"]["teacher"] for t in candidates} <= {"c3d", "r21d"}
    for trial in trials:
        assert set(trial["stages"]) == ({"early", "late"} if trial["state"] == "complete" else {"early"})
        for splits in trial["stages"].values():
            for values in splits.values():
                assert all(0 <= values[m] <= 1 for m in ("pretext", "knn", "linear"))
    for block, best in results["best"].items():
        objectives = [t["objective"] for t in candidates if t["block"] == block and t["objective"] is not None]
        assert best["objective"] == min(objectives), "pretext_loss is minimised"


def test_a_sweep_counts_the_targets_it_computed_and_those_it_found(swept: tuple[Path, Ending]) -> None:
    store, end = swept
    # Two teachers and one seed; the smaller fraction's samples are the first of the larger one's.
    rows = [row for trial in StoreFiles(store).trials() for row in trial.rows()]
    assert end.targets == {name: sum(row.get(name, 0) for row in rows) for name in TARGET_COUNTS}
    computed, found = (end.targets[name] for name in TARGET_COUNTS)
    assert computed > 0
    assert found > 0
    assert f"{computed:,} computed, {found:,} found" in end.account("runs")[-1]


def test_a_pruned_candidate_is_worse_than_its_bar_says(swept: tuple[Path, Ending]) -> None:
    """DESIGN 4.4, by hand: with window 2, candidate n is compared with candidates 0 … n − 2 of its own block."""
    trials = [t for t in sweep_results(StoreFiles(swept[0]), "tiny")["trials"] if not t["control"]]
    for trial in trials:
        earlier = [
            t["stages"]["early"]["validation"]["pretext_loss"]
            for t in trials
            if t["block"] == trial["block"] and t["candidate"] <= trial["candidate"] - 2
        ]
        value = trial["stages"]["early"]["validation"]["pretext_loss"]
        better = sum(other < value for other in earlier)
        places = -(-(len(earlier) + 1) // 2)
        assert (trial["state"] == "pruned") == (len(earlier) >= 2 and better >= places)


def test_a_finished_sweep_trains_nothing_and_imports_neither_ray_nor_torch(
    swept: tuple[Path, Ending], sweep_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = swept
    before = outcome(store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
    arguments = ["sweep", str(sweep_file), "--store", str(store)]
    loaded = "[name for name in ('ray', 'torch') if name in sys.modules]"
    done = run_python(f"import sys, kdtune.cli; print(kdtune.cli.main({arguments!r}), {loaded})")
    assert done.stdout.splitlines()[-1] == f"{EXIT_OK} []"
    assert "0 trials trained, 12 found" in done.stdout
    assert "note:" not in done.stdout
    assert outcome(store) == before


@pytest.mark.slow  # test_backends.py and test_sweep_endings.py: loader workers, and two trials at a time
def test_parallelism_and_loader_workers_change_neither_candidates_nor_prunings_nor_bits(
    swept: tuple[Path, Ending], sweep_file: Path, ray_address: str, tmp_path: Path
) -> None:
    # A trial that wants both cores leaves no room for a second one. Threads belong to the trial and do not change.
    end, _ = run(sweep_file, tmp_path, ray_address, ("resources.cpu=2", "resources.workers=1"))
    assert end.exit_code == EXIT_OK
    assert outcome(tmp_path) == outcome(swept[0])


@pytest.mark.slow
def test_a_candidate_with_several_seeds_is_one_candidate(
    sweep_form: dict[str, Any], ray_address: str, tmp_path: Path
) -> None:
    form = {**sweep_form, "name": "seeds", "teachers": {}, "prune": {}, "objective": {"metric": "linear"}}
    search = {"space": {"alpha": [0.1, 1.0]}, "sampler": "grid", "seeds": [0, 1]}
    file = tmp_path / "seeds.yaml"
    file.write_text(yaml.safe_dump({**form, "search": search}))
    end, said = run(file, tmp_path, ray_address)
    assert end.exit_code == EXIT_OK, said
    results = sweep_results(StoreFiles(tmp_path), "seeds")
    assert [(t["candidate"], t["seed"]) for t in results["trials"]] == [
        (None, 0),
        (None, 1),
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]
    spreads = [t.get("spread") for t in results["trials"]]
    assert spreads[:2] == [None, None]
    for n in (0, 1):
        values = [t["objective"] for t in results["trials"] if t["candidate"] == n]
        assert spreads[2 + 2 * n] == pytest.approx(statistics.stdev(values))
    means = [sum(t["objective"] for t in results["trials"] if t["candidate"] == n) / 2 for n in (0, 1)]
    assert results["best"]["all"]["candidate"] == means.index(max(means))


def test_the_ledger_survives_a_torn_line_and_keeps_what_was_asked(
    swept: tuple[Path, Ending], sweep_file: Path, tmp_path: Path
) -> None:
    store = tmp_path / "runs"
    shutil.copytree(swept[0], store, symlinks=True)
    files = StoreFiles(store).sweep("tiny")
    ledger = files.folder / read_json(files.sweep)["ledger"]
    before = outcome(store)
    with ledger.open("a") as file:
        file.write('{"event": "ended", "group": "fraction=1.0 \u00b7 cand')
    append_jsonl(ledger, json.loads(ledger.read_bytes().split(b"\n")[0]))
    end, _ = run(sweep_file, store, None)
    assert end.trained == 0
    assert outcome(store) == before


def test_a_store_of_another_version_is_refused(sweep_file: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "store.json", {"version": 99, "id": "x"})
    with pytest.raises(UserError, match="version 99"):
        run(sweep_file, tmp_path, None)


@pytest.mark.slow
def test_a_changed_sweep_file_is_explained(
    swept: tuple[Path, Ending], sweep_form: dict[str, Any], sweep_file: Path, ray_address: str, tmp_path: Path
) -> None:
    store = tmp_path / "runs"
    shutil.copytree(swept[0], store)
    form = copy.deepcopy(sweep_form)
    form["prune"]["keep"] = 1.0
    file = tmp_path / "changed.yaml"
    file.write_text(yaml.safe_dump(form))
    end, said = run(file, store, ray_address)
    assert any("the sweep file has changed since the last run (prune.keep)" in line for line in said)
    assert end.found > 0
    _, said = run(sweep_file, store, None)
    assert any("the same as in an earlier run" in line for line in said)


# ---- several objectives ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_objectives_give_a_pareto_set(sweep_form: dict[str, Any], ray_address: str, tmp_path: Path) -> None:
    form = {**sweep_form, "name": "two", "teachers": {}, "prune": {}}
    form["objective"] = [{"metric": "pretext_loss", "mode": "min"}, {"metric": "gmac", "mode": "min"}]
    search = {"space": {"student.width": [4, 6, 8]}, "sampler": "grid", "blocks": {}}
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump({**form, "search": search}))
    end, said = run(file, tmp_path, ray_address)
    assert end.exit_code == EXIT_OK, said
    results = sweep_results(StoreFiles(tmp_path), "two")
    points = {t["candidate"]: tuple(t["objectives"]) for t in results["trials"] if t["candidate"] is not None}
    for trial in results["trials"]:
        assert trial["objectives"] == [trial["stages"]["late"]["validation"]["pretext_loss"], trial["cost"]["gmac"]]
    best = [n for n, p in points.items() if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points.values())]
    assert [t["candidate"] for t in results["best"]["all"]] == sorted(best)
    assert 0 in best, "the narrowest is the cheapest"
