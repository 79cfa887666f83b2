"""Sweeps that come with kdtune are found by their names, wherever a command runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import ROOT

from kdtune.cli import main
from kdtune.config.load import load_sweep
from kdtune.config.reading.shipped import located, shipped
from kdtune.config.space import split_path
from kdtune.errors import EXIT_OK, EXIT_USER_ERROR, ConfigError


def test_a_bare_name_is_looked_for_here_then_in_sweeps_then_among_the_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "sweeps" / "width.yaml").read_text()
    assert located(Path("width.yaml")).read_text() == text
    assert located(Path("width")).read_text() == text
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "width.yaml").write_text("name: mine")
    assert located(Path("width")) == Path("sweeps/width.yaml")
    (tmp_path / "width.yaml").write_text("name: nearer")
    assert located(Path("width.yaml")) == Path("width.yaml")
    assert located(Path("./other/width.yaml")) == Path("other/width.yaml")  # a path is used as it is


def test_an_unknown_name_is_refused_with_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refusal:
        located(Path("lamda_tau.yaml"))
    assert all(name in str(refusal.value) for name in shipped())
    assert "did you mean lambda_tau.yaml?" in str(refusal.value)
    assert shipped() == sorted(path.name for path in (ROOT / "sweeps").glob("*.yaml"))


def test_plan_takes_a_shipped_name_from_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "lambda_tau.yaml"]) == EXIT_OK
    assert "teachers" in capsys.readouterr().out
    assert main(["plan", "lamda_tau"]) == EXIT_USER_ERROR
    assert "lambda_tau.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("search.blocks.data.fraction", ["search", "blocks", "data.fraction"]),
        ("search.space.optimizer.lr.log", ["search", "space", "optimizer.lr", "log"]),
        ("search.space.tau.when.loss.target", ["search", "space", "tau", "when", "loss.target"]),
        ("search.space.lambda", ["search", "space", "lambda"]),
        ("search.space", ["search", "space"]),
        ("trial.data.fraction", ["trial", "data", "fraction"]),
    ],
)
def test_a_set_reaches_searched_parameters_by_their_paths(path: str, keys: list[str]) -> None:
    assert split_path(path) == keys


def test_set_changes_a_shipped_sweep_s_blocks_and_space() -> None:
    file = ROOT / "sweeps" / "lambda_tau.yaml"
    sweep = load_sweep(file, ["search.blocks.data.fraction=[0.5]", "search.space.optimizer.lr.log=[0.001, 0.1]"])
    assert sweep.search.blocks["data.fraction"] == [0.5]
    assert sweep.search.space["optimizer.lr"].log == (0.001, 0.1)
