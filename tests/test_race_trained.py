"""Races that train: budgets, stops and kills change neither a decision nor a bit; fixed seeds find a race's trials."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from databases import empty_database
from helpers import ROOT, bits, link_clips

import kdtune
from kdtune.config.sweep import SweepConfig
from kdtune.errors import EXIT_INTERRUPTED, EXIT_OK
from kdtune.execute.backend import backend_of
from kdtune.history.events import EpochEnd, Event
from kdtune.history.race import Looked
from kdtune.history.reading import read_history
from kdtune.plan.plan import plan
from kdtune.store import StoreFiles
from kdtune.sweep.stopping import Cancel
from kdtune.train.session import Session
from sweeps import outcome, run

#: A candidate that learns nothing, and one that hardly differs from the control, so that no look decides.
SEARCH = {
    "space": {"optimizer.lr": [1.0e-9, 0.0101]},
    "controls": [{"teacher": "none", "optimizer.lr": 0.01}],
    "sampler": "grid",
    "seeds": {"race": {"first": 2, "most": 3}},
}


@pytest.fixture(scope="session")
def race_form(sweep_form: dict[str, Any]) -> dict[str, Any]:
    form = {name: section for name, section in sweep_form.items() if name not in ("teachers", "prune")}
    trial = {**form["trial"], "epochs": 1, "stages": {"late": 1}}
    return {**form, "trial": trial, "search": SEARCH, "objective": {"metric": "knn"}}


def written(form: dict[str, Any], folder: Path, name: str = "tiny") -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**form, "name": name}))
    return file


def looks(store: Path, name: str = "tiny") -> list[Looked]:
    races = [block.race for block in read_history(StoreFiles(store), name).blocks.values()]
    return [look for race in races if race is not None for look in race.looks]


def to_train(sweep: SweepConfig, store: Path) -> str:
    return next(line for line in plan(sweep, StoreFiles(store)) if line.startswith("to train"))


def stop_at(cancel: Cancel, words: str) -> Callable[[Event], None]:
    def seen(event: Event) -> None:
        if isinstance(event, EpochEnd) and words in event.group:
            cancel.ask()

    return seen


@pytest.mark.slow
def test_fixed_seeds_find_the_trials_of_a_race_that_was_stopped(
    race_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    link_clips(prepared.store.root, tmp_path)
    search = {**SEARCH, "space": {"optimizer.lr": [0.0101]}}
    config = SweepConfig.model_validate({**race_form, "name": "tiny", "search": search})
    file, backend, cancel = written({**race_form, "search": search}, tmp_path), backend_of("inprocess"), Cancel()
    assert to_train(config, tmp_path).startswith("to train     4 to 6 trials")
    end, said = run(file, tmp_path, backend, (), cancel, stop_at(cancel, "control seed 2"))
    before = looks(tmp_path)
    assert (end.exit_code, len(before), before[0].decision) == (EXIT_INTERRUPTED, 1, None), said
    assert to_train(config, tmp_path).startswith("to train     1 trial:")
    # The rest through the library, as a configuration that is built in Python.
    sweep = kdtune.run(config, store=tmp_path, backend="inprocess", tracking=False)
    found = looks(tmp_path)
    assert found[:1] == before
    assert [len(look.control) for look in found] == [2, 3]
    assert found[-1].decision is not None
    assert sweep.trials()["seed"].tolist() == [0, 1, 2] * 2
    assert sweep.best(seed=2).key == sweep.trials()["key"].tolist()[-1]
    # A sweep with fixed seeds trains one more, of the control and of the candidate.
    fixed = written({**race_form, "search": {**search, "seeds": [0, 1, 2, 3]}}, tmp_path, "fixed")
    end, said = run(fixed, tmp_path, backend)
    assert (end.trained, end.found, end.waited) == (2, 6, 0), said
    block = read_history(StoreFiles(tmp_path), "fixed").blocks["all"]
    assert tuple(block.control_values().values())[:3] == found[-1].control
    assert tuple(block.candidates[0].values().values())[:3] == found[-1].candidates[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inprocess", "ray"])
def test_a_race_that_a_budget_and_a_request_end_decides_the_same(
    name: str, race_form: dict[str, Any], prepared: Session, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    backend = backend_of(name, request.getfixturevalue("ray_address") if name == "ray" else None)
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    for store in (stopped, whole):
        link_clips(prepared.store.root, store)
    file = written(race_form, tmp_path)
    run(file, whole, backend_of("inprocess"))
    found = looks(whole)
    assert [len(look.control) for look in found] == [2, 3]
    end, said = run(file, stopped, backend, ("stop.trials=3",))
    assert (end.exit_code, looks(stopped)) == (EXIT_OK, []), said
    cancel = Cancel()
    end, said = run(file, stopped, backend, (), cancel, stop_at(cancel, "seed 2"))
    assert (end.exit_code, looks(stopped)) == (EXIT_INTERRUPTED, found[:1]), said
    end, said = run(file, stopped, backend)
    assert end.exit_code == EXIT_OK, said
    assert looks(stopped) == found
    assert outcome(stopped) == outcome(whole)
    assert any("all · race, look 2: " in line for line in said)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_race_killed_at_any_moment_decides_the_same(
    race_form: dict[str, Any], prepared: Session, tmp_path: Path
) -> None:
    """The process is killed after a random number of its lines, again and again; the last lives are undisturbed."""
    whole = tmp_path / "whole"
    link_clips(prepared.store.root, whole)
    file = written(race_form, tmp_path)
    run(file, whole, backend_of("inprocess"))
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draws, kills = random.Random(seed), 0
    for life in range(4):
        store = tmp_path / f"life_{life}"
        link_clips(prepared.store.root, store)
        code: int | None = None
        while code != EXIT_OK:
            command = [sys.executable, "-m", "kdtune", "sweep", str(file), "--store", str(store)]
            environment = {**os.environ, "MLFLOW_TRACKING_URI": empty_database(store / "mlflow.db")}
            process = subprocess.Popen(
                [*command, "--backend", "inprocess"],
                env=environment,
                cwd=ROOT,
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
            moment = draws.randint(1, 14)
            for number, line in enumerate(process.stderr or ()):
                assert "Traceback" not in line
                if number == moment:
                    process.send_signal(signal.SIGKILL)
            code = process.wait()
            kills += code == -signal.SIGKILL
        assert looks(store) == looks(whole)
        assert outcome(store) == outcome(whole)
        for files in StoreFiles(whole).trials():
            assert bits(StoreFiles(store).trial(files.key)) == bits(files)
    print(f"survived {kills} kills")
    assert kills >= 4
