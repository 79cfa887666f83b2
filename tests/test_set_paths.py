"""`--set` takes the same paths of a trial in every command and for every file: short or whole, with `trial.` or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdtune.cli import main
from kdtune.config.load import load_sweep, load_trial
from kdtune.config.trial import TrialConfig
from kdtune.errors import EXIT_USER_ERROR, ConfigError, UserError

#: Paths of two fields, as a user may write them.
PATHS = [
    ("lambda", "epochs"),
    ("loss.lambda", "epochs"),
    ("trial.lambda", "trial.epochs"),
    ("trial.loss.lambda", "trial.epochs"),
]


@pytest.fixture
def files(trial_form: dict[str, Any], sweep_form: dict[str, Any], tmp_path: Path) -> dict[str, Path]:
    found = {"trial": tmp_path / "trial.yaml", "sweep": tmp_path / "tiny.yaml"}
    found["trial"].write_text(yaml.safe_dump(trial_form))
    found["sweep"].write_text(yaml.safe_dump(sweep_form))
    return found


class Reached(UserError):
    """Ends a command where it would begin its work."""


@pytest.mark.parametrize(("weight", "epochs"), PATHS)
def test_a_trial_takes_every_form_of_a_path(weight: str, epochs: str, files: dict[str, Path]) -> None:
    sets = [f"{weight}=3.5", f"{epochs}=7", "stages={early: 1, late: 7}"]
    for config in (load_trial(files["trial"], sets), load_trial(None, sets), load_sweep(files["sweep"], sets).trial):
        assert (config.loss.lambda_, config.epochs, config.stage_epochs["late"]) == (3.5, 7, 7)
    # The trial of a sweep file has its teacher by name, and the sweep's own fields can be set as well.
    named = load_trial(files["sweep"], [*sets, "trial.teacher=c3d", "search.seed=5", "trial.seed=4"])
    assert named.teacher is not None
    assert (named.loss.lambda_, named.epochs, named.seed, named.teacher.student.backbone) == (3.5, 7, 4, "c3d")


@pytest.mark.parametrize(("weight", "epochs"), PATHS)
def test_the_commands_take_every_form_of_a_path(
    weight: str, epochs: str, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[TrialConfig] = []

    def reached(config: TrialConfig, *_: Any, **__: Any) -> Any:
        received.append(config)
        raise Reached([])

    monkeypatch.setattr("kdtune.api.training.train", reached)
    monkeypatch.setattr("kdtune.train.prepared.Prepared.prepare", lambda prepared, config: reached(config))
    sets = [part for key, value in ((weight, 3.5), (epochs, 2)) for part in ("--set", f"{key}={value}")]
    store = ["--store", str(tmp_path / "runs")]
    for command in (["train"], ["data", "prepare"]):
        for file in files.values():
            assert main([*command, str(file), *sets, *store]) == EXIT_USER_ERROR
            assert (received[-1].loss.lambda_, received[-1].epochs) == (3.5, 2)
    assert len(received) == 4


@pytest.mark.parametrize(
    "load", [lambda files, sets: load_trial(files["trial"], sets), lambda files, sets: load_sweep(files["sweep"], sets)]
)
def test_a_wrong_value_is_refused_under_the_path_that_was_given(
    load: Callable[[dict[str, Path], list[str]], object], files: dict[str, Path]
) -> None:
    with pytest.raises(ConfigError) as refusal:
        load(files, ["trial.loss.lambda=-1", "trial.nothing=1", "trial.student.widht=4"])
    text = str(refusal.value)
    assert text.count("--set ") == len(refusal.value.problems) == 3
    assert "--set trial.loss.lambda" in text
    assert "got -1" in text
    assert "did you mean width" in text or "did you mean student.width" in text
