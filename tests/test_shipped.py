"""Sweeps that come with kdtune are found by their names, wherever a command runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import ROOT

from kdtune.cli import main
from kdtune.config.shipped import located, shipped
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
