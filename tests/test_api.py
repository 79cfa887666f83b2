"""The Python API: what `import kdtune` offers, that its documentation is true, and that it leaves the process alone."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import ROOT, link_clips, run_python
from test_layout import HEAVY

import kdtune
from kdtune.history.events import Asked, Ended, EpochEnd, Started
from kdtune.history.trials import sweep_trials
from kdtune.report.standing import sweep_of
from kdtune.train.session import Session

MODULES = (
    "kdtune",
    "kdtune.api.running",
    "kdtune.api.store",
    "kdtune.api.sweep",
    "kdtune.api.training",
    "kdtune.api.trial",
    "kdtune.clips.synthetic",
    "kdtune.train.measuring.student",
)


@pytest.fixture(scope="module")
def place(trial_form: dict[str, Any], prepared: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `trial.yaml`, with `tiny.yaml`, a sweep of it, and with `runs`, where that sweep is complete."""
    folder = tmp_path_factory.mktemp("api")
    search = {"space": {"teacher": ["c3d"], "lambda": {"log": [0.1, 2.0]}}, "candidates": 2, "sampler": "random"}
    sweep = {
        "name": "tiny",
        "question": "Does a <C3D> teach a small R3D?",
        "trial": trial_form,
        "teachers": {"c3d": {"student": {"backbone": "c3d", "width": 4}}},
        "search": search,
    }
    (folder / "trial.yaml").write_text(yaml.safe_dump(trial_form))
    (folder / "tiny.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    link_clips(prepared.store.root, folder / "runs")
    events.clear()
    runs = folder / "runs"
    kdtune.run(folder / "tiny.yaml", store=runs, backend="inprocess", on_event=events.append, tracking=False)
    return folder


#: What the run of that sweep told.
events: list[Any] = []


@pytest.fixture
def sweep(place: Path) -> kdtune.Sweep:
    return kdtune.open_sweep("tiny", store=place / "runs")


# ---- the names -------------------------------------------------------------------------------------------------------


def test_importing_it_imports_nothing_heavy() -> None:
    names = (*HEAVY, "pydantic", "yaml", "argparse", "logging")
    code = f"import kdtune, sys; dir(kdtune); print([name for name in {names!r} if name in sys.modules])"
    assert run_python(code).stdout == "[]\n"


def test_records_are_read_without_torch(place: Path) -> None:
    code = f"""
import kdtune, sys
sweep = kdtune.open_sweep("tiny", store={str(place / "runs")!r})
trial = sweep.control()
print(trial.config.epochs, trial.state, len(trial.stages), len(sweep.trials()), len(sweep.answer) > 0)
print([name for name in {HEAVY[:5]!r} if name in sys.modules])
"""
    assert run_python(code).stdout == "2 complete 2 3 True\n[]\n"


def test_every_public_name_is_there_and_known_to_type_checkers() -> None:
    tree = ast.parse((ROOT / "kdtune/__init__.py").read_text())
    typed = {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if node.module.startswith("kdtune.")
    }
    assert sorted(typed) == kdtune.__all__ == sorted(kdtune.__all__)
    for name, module in typed.items():
        public = getattr(kdtune, name)
        if name != "train":
            assert public is getattr(importlib.import_module(module), name)
        assert name in dir(kdtune)
        assert public.__doc__
    assert kdtune.train is importlib.import_module("kdtune.train"), "which can be called"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = kdtune.nothing
    assert (ROOT / "kdtune/py.typed").exists()
    assert '"py.typed"' in (ROOT / "pyproject.toml").read_text()


def test_what_its_documentation_says_is_true(
    place: Path, sweep: kdtune.Sweep, trial_form: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    trial = sweep.control()
    assert trial is not None
    known = {
        "kdtune": kdtune,
        "torch": torch,
        "np": np,
        "Path": Path,
        "form": trial_form,
        "trial": trial,
        "key": trial.key,
    }
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    shown = set()
    for module in map(importlib.import_module, MODULES):
        for found in doctest.DocTestFinder().find(module, extraglobs=known):
            runner.run(found)
            shown |= {found.name.removeprefix(f"{module.__name__}.")} if found.examples else set()
    assert runner.failures == 0
    public = {name for name in kdtune.__all__ if not name.endswith(("Config", "Error"))}
    for name in public - {"train"}:
        members = inspect.getmembers(getattr(kdtune, name), inspect.isfunction)
        public |= {f"{name}.{member}" for member, _ in members if not member.startswith("_")}
    assert public - {"Training.close"} <= shown


# ---- a sweep ---------------------------------------------------------------------------------------------------------


def test_frames_have_their_documented_columns(sweep: kdtune.Sweep) -> None:
    trials, epochs, gains = sweep.trials(), sweep.epochs(), sweep.gains()
    kinds = {"key": "string", "candidate": "Int64", "control": "bool", "seed": "int64", "objective": "float64"}
    kinds |= {"params/lambda": "float64", "late/test/knn": "float64", "cost/gmac": "float64", "error": "string"}
    assert {name: str(trials[name].dtype) for name in kinds} == kinds
    assert trials["candidate"].isna().tolist() == trials["control"].tolist() == [True, False, False]
    assert trials["objective"].tolist() == trials["late/validation/knn"].tolist()
    assert epochs.groupby("key", sort=False)["epoch"].agg(list).tolist() == [[1, 2]] * 3
    assert list(epochs["key"].unique()) == trials["key"].tolist()
    # A gain is the candidate less the control, in points.
    own = trials.set_index("candidate")["objective"].drop(index=[], errors="ignore")
    control = trials.loc[trials["control"], "objective"].item()
    expected = [100 * (own[number] - control) for number in gains["candidate"]]
    np.testing.assert_allclose(gains["gain"], expected)
    assert gains["gain"].is_monotonic_decreasing
    assert ((gains["low"] <= gains["gain"]) & (gains["gain"] <= gains["high"])).all()
    assert set(gains["basis"]) == {"videos"}, "one seed"
    assert gains["videos"].dtype == "Int64"
    assert (gains["videos"] > 1).all()


def test_gains_on_test_compare_the_same_videos(sweep: kdtune.Sweep, place: Path) -> None:
    """A report takes the outcomes of each test video from the trials' rows."""
    report = sweep_of(sweep_trials(kdtune.Store(place / "runs").files, sweep.history))
    _, gains = report.chosen_on_test(report.standings[0])
    assert {(gain.basis, gain.paired) for gain in gains.values()} == {("videos", True)}


def test_frames_of_a_sweep_without_trials_have_the_same_columns(place: Path, tmp_path: Path) -> None:
    store = kdtune.Store(tmp_path)
    source = kdtune.Store(place / "runs").files.sweep("tiny").folder
    folder = store.files.sweep("tiny").folder
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_bytes((source / "sweep.json").read_bytes())
    empty, full = kdtune.open_sweep("tiny", store), kdtune.open_sweep("tiny", place / "runs")
    for name in ("trials", "epochs", "gains", "pareto"):
        nothing, found = getattr(empty, name)(), getattr(full, name)()
        assert len(nothing) == 0
        assert nothing.dtypes.to_dict() == {column: found[column].dtype for column in nothing.columns}
    assert (empty.best(), empty.control()) == (None, None)
    assert empty.answer.startswith("No answer yet")
    assert "No answer yet" in empty._repr_html_()


def test_a_notebook_shows_the_answer_with_what_users_wrote_escaped(sweep: kdtune.Sweep) -> None:
    html = sweep._repr_html_()
    assert "Does a &lt;C3D&gt; teach" in html
    assert "<C3D>" not in html
    assert "<table" in html


def test_unknown_names_are_refused_with_the_known_ones(sweep: kdtune.Sweep, place: Path) -> None:
    with pytest.raises(kdtune.StoreError, match=r"block: .*'everything'.*allowed: all"):
        sweep.gains("everything")
    with pytest.raises(kdtune.StoreError, match=r"no trial with seed 7 \(allowed: 0\)"):
        sweep.best(seed=7)
    with pytest.raises(kdtune.StoreError, match="no trial whose key begins with 'x'"):
        sweep.trial("x")
    with pytest.raises(kdtune.ConfigError, match=r"search\.candidate: unknown key, did you mean candidates"):
        kdtune.run({"name": "s", "search": {"space": {}, "candidate": 2}}, store=place / "runs")
    with pytest.raises(kdtune.UserError, match="backend: there is no backend 'slurm'"):
        kdtune.run(place / "tiny.yaml", store=place / "runs", backend="slurm")


def test_events_tell_what_happens_and_a_sweep_built_in_python_is_the_file_s(place: Path, sweep: kdtune.Sweep) -> None:
    kinds = [type(event) for event in events]
    assert [kinds.count(kind) for kind in (Asked, Started, EpochEnd, Ended)] == [4, 4, 8, 4]
    again: list[Any] = []
    built = kdtune.SweepConfig.model_validate(yaml.safe_load((place / "tiny.yaml").read_text()))
    found = kdtune.run(built, store=place / "runs", backend="inprocess", on_event=again.append, tracking=False)
    assert found.trials()["key"].tolist() == sweep.trials()["key"].tolist()
    assert not [event for event in again if isinstance(event, EpochEnd)], "nothing is trained again"


# ---- the process -----------------------------------------------------------------------------------------------------


def test_training_leaves_the_process_as_it_was(place: Path) -> None:
    """In a thread, as in a notebook, between two rows and afterwards; of sweeps tests/test_library_run.py says so."""
    code = f"""
import os, sys, threading
sys.path.insert(0, "tests")
import torch, kdtune
import sympy, decord  # libraries that change the process on import
from process_state import process_state
os.chdir({str(place)!r})
os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.abspath("cache")  # a variable that torch would set
torch.set_num_threads(2)

def work():
    before = process_state()
    training = kdtune.train("trial.yaml", store="again", device="cpu")
    for row in training:
        assert process_state() == before, sorted(process_state() ^ before)
    training.trial.features([])
    assert process_state() == before, sorted(process_state() ^ before)
    done.append(training.trial.state)

done = []
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(done)
"""
    link_clips(place / "runs", place / "again")
    done = run_python(code)
    assert done.stdout == "['complete']\n", done.stderr
