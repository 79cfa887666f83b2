"""The Python API: what `import kdtune` offers, that its documentation is true, and that it leaves the process alone."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import CPU, ROOT, bits, run_python
from test_layout import HEAVY

import kdtune
from kdtune.clips.catalog import video_path
from kdtune.clips.dataset import TrialData
from kdtune.config.trial import TrialConfig
from kdtune.models.heads import build_network
from kdtune.store.files import write_json
from kdtune.train.evaluate import video_features
from kdtune.train.profile import TorchSettings, settings_kept
from kdtune.train.samples import Samples
from kdtune.train.session import Session

MODULES = ("kdtune", "kdtune.api.store", "kdtune.api.trial", "kdtune.api.training", "kdtune.train.student")


def link_clips(store: Path, to: Path) -> None:
    """Create the store `to`, with the decoded frames of `store`."""
    to.mkdir()
    for part in ("clips", "manifests"):
        (to / part).symlink_to((store / part).resolve())


@pytest.fixture(scope="module")
def place(trial_form: dict[str, Any], prepared: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `trial.yaml`, and with `runs` where that trial is complete."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "trial.yaml").write_text(yaml.safe_dump(trial_form))
    link_clips(prepared.store.root, folder / "runs")
    write_json(folder / "runs" / "sweeps" / "tiny" / "sweep.json", {"name": "tiny"})
    kdtune.train(folder / "trial.yaml", store=folder / "runs", device="cpu").run()
    return folder


@pytest.fixture
def trial(place: Path) -> kdtune.Trial:
    (found,) = kdtune.Store(place / "runs").trials()
    return found


# ---- the names -------------------------------------------------------------------------------------------------------


def test_importing_it_imports_nothing_heavy() -> None:
    names = (*HEAVY, "pydantic", "yaml", "argparse", "logging")
    code = f"import kdtune, sys; dir(kdtune); print([name for name in {names!r} if name in sys.modules])"
    assert run_python(code).stdout == "[]\n"


def test_a_store_is_read_without_torch(place: Path, trial: kdtune.Trial) -> None:
    code = f"""
import kdtune, sys
trial = kdtune.Store({str(place / "runs")!r}).trial({trial.key!r})
print(trial.config.epochs, trial.state, len(trial.stages), [name for name in {HEAVY[:5]!r} if name in sys.modules])
"""
    assert run_python(code).stdout == "2 complete 2 []\n"


def test_every_public_name_is_there_and_known_to_type_checkers() -> None:
    tree = ast.parse((ROOT / "kdtune/__init__.py").read_text())
    typed = {
        alias.asname: node.module
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
    place: Path, trial: kdtune.Trial, trial_form: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    known = {"kdtune": kdtune, "torch": torch, "np": np, "form": trial_form, "trial": trial, "key": trial.key}
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=flags)
    documented = set()
    for module in MODULES:
        for found in doctest.DocTestFinder().find(importlib.import_module(module), extraglobs=known):
            runner.run(found)
            documented |= {found.name} if found.examples else set()
    assert runner.failures == 0
    assert {f"kdtune.api.{name}" for name in PUBLIC} <= documented


#: Names that must have an example.
PUBLIC = (
    "store.Store",
    "store.Store.trials",
    "store.Store.trial",
    "store.Store.teachers",
    "trial.Trial",
    "trial.Trial.epochs",
    "trial.Trial.load_student",
    "trial.Trial.features",
    "trial.Trial.replay",
    "training.train",
    "training.Training",
)


# ---- training --------------------------------------------------------------------------------------------------------


def test_a_file_a_mapping_and_a_config_are_one_trial(
    place: Path, trial: kdtune.Trial, trial_form: dict[str, Any], tiny: TrialConfig
) -> None:
    for source in (place / "trial.yaml", str(place / "trial.yaml"), trial_form, tiny):
        assert kdtune.train(source, store=place / "runs").trial == trial
    assert trial.config.model_copy(update={"stages": tiny.stages}) == trial.config
    assert kdtune.train(trial.config, store=place / "runs").trial == trial, "a restored one, too"


def test_all_problems_are_told_at_once(trial_form: dict[str, Any], tmp_path: Path) -> None:
    wrong = {**trial_form, "epochs": 0, "clip": {"frames": 8, "size": "small"}, "loose": 1}
    with pytest.raises(kdtune.ConfigError) as refused:
        kdtune.train(wrong, store=tmp_path)
    assert sorted(problem.where for problem in refused.value.problems) == [
        "trial: clip.size",
        "trial: epochs",
        "trial: loose",
    ]
    with pytest.raises(kdtune.StoreError, match="store: names no folder"):
        kdtune.train(trial_form, store=" ")


def test_a_stopped_training_resumes_to_the_same_bits(
    place: Path, trial: kdtune.Trial, prepared: Session, tmp_path: Path
) -> None:
    link_clips(prepared.store.root, tmp_path / "runs")
    training = kdtune.train(place / "trial.yaml", store=tmp_path / "runs", device="cpu")
    assert next(training)["epoch"] == 1
    training.close()
    assert training.trial.state == "incomplete"
    again = kdtune.train(place / "trial.yaml", store=tmp_path / "runs", device="cpu").run()
    assert again.result is not None
    assert bits(again.files) == bits(trial.files)


def test_fine_tuning_follows(place: Path, trial: kdtune.Trial, trial_form: dict[str, Any], tmp_path: Path) -> None:
    link_clips(place / "runs", tmp_path / "runs")
    shutil.copytree(place / "runs" / "trials", tmp_path / "runs" / "trials")
    training = kdtune.train({**trial_form, "finetune": {"epochs": 1}}, store=tmp_path / "runs", device="cpu")
    assert training.finetuned is not None
    assert (training.trial.key, training.finetuned.state) == (trial.key, "incomplete")
    assert [row["epoch"] for row in training] == [1, 2, 1]
    assert training.finetuned.config.start is not None
    assert training.finetuned.result is not None


def test_a_call_leaves_the_process_as_it_was(place: Path) -> None:
    """Train in a thread, as a notebook may; torch's settings are unchanged between rows and afterwards."""
    code = f"""
import logging, os, signal, sys, threading, warnings
import torch, kdtune
import sympy, decord  # libraries that change the process on import
os.chdir({str(place)!r})
os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.abspath("cache")  # variables that torch would set
torch.set_num_threads(2)

def state():
    ours = logging.getLogger("kdtune")
    deterministic = [torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic]
    settings = [torch.get_num_threads(), *deterministic]
    hooks = [sys.unraisablehook, sys.excepthook, threading.excepthook]
    signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    loggers = [(logger.level, logger.handlers) for logger in (logging.root, ours)]
    return [settings, hooks, signals, loggers, list(warnings.filters), *sorted(os.environ.items())]

def work():
    before = state()
    for row in kdtune.train("trial.yaml", store="again", device="cpu"):
        assert state() == before, [part for part in state() if part not in before]
    (trial,) = kdtune.Store("again").trials()
    assert trial.replay() is None
    trial.features([])
    assert state() == before, [part for part in state() if part not in before]
    done.append(trial.state)

done = []
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(done)
"""
    link_clips(place / "runs", place / "again")
    done = run_python(code)
    assert done.stdout == "['complete']\n", done.stderr


# ---- a trial ---------------------------------------------------------------------------------------------------------


def test_features_have_the_bits_of_the_trainers_evaluation(
    trial: kdtune.Trial, tiny: TrialConfig, prepared: Session
) -> None:
    clips = prepared.clips(tiny)
    data = TrialData.of(tiny, clips)
    student = trial.load_student()
    with settings_kept():
        network = build_network(tiny)
        network.load_state_dict(student.network.state_dict())
        expected, _ = video_features(network, Samples(tiny, data, CPU), data.train)
    files = [video_path(Path(tiny.data.folder), clips.index["video"][row]) for row in data.train]
    found = trial.features(files, device="cpu")
    assert (found.dtype, found.shape) == (np.float32, (len(files), 32))
    np.testing.assert_array_equal(found, expected.numpy())
    assert trial.features([]).shape == (0, 32)


def test_every_video_that_cannot_be_used_is_named(trial: kdtune.Trial, tmp_path: Path) -> None:
    short, torn = np.zeros((7, 40, 40, 3), np.uint8), tmp_path / "torn.avi"
    torn.write_bytes(b"RIFF")
    with pytest.raises(kdtune.DataError) as refused:
        trial.features([np.zeros((9, 40, 40, 3), np.uint8), short, torn, tmp_path / "none.avi", np.zeros((8, 40, 40))])
    said = [str(problem) for problem in refused.value.problems]
    assert said[0] == "videos[1]: has 7 frames, the student needs at least 8"
    assert [line.partition(": ")[0] for line in said[1:]] == [str(torn), str(tmp_path / "none.avi"), "videos[4]"]
    assert said[3] == "videos[4]: frames must be uint8 (T, H, W, 3), but got float64 (8, 40, 40)"
    with pytest.raises(TypeError, match="must be a list of paths or arrays"):
        trial.features("clip.avi")


def test_settings_are_put_back() -> None:
    before = TorchSettings.now()
    with settings_kept():
        torch.set_num_threads(before.threads + 1)
        torch.use_deterministic_algorithms(not before.deterministic)
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = "other"
        assert TorchSettings.now() != before
    assert TorchSettings.now() == before


def test_places_and_records_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    for named in ("me:word@host\0", "", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(kdtune.StoreError, match="store: "):
            kdtune.Store(named)
    store = kdtune.Store(tmp_path)
    folder = store.files.trial("0" * 32).folder
    for form in ({"trial": {"loss": 3}, "data": "x", "teacher": None, "start": None, "semantics": 4}, {"trial": 1}):
        write_json(folder / "config.json", form)
        with pytest.raises(kdtune.StoreError, match="holds no trial's configuration"):
            _ = store.trial("0").config
