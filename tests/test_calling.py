"""How kdtune is called: help, suggestions, completion, and the commands that it prints for pasting."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from kdtune.cli import main
from kdtune.cli.completion import set_paths, sweep_files, sweep_names
from kdtune.errors import EXIT_OK, EXIT_USER_ERROR

KDTUNE = Path(sys.executable).with_name("kdtune")


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of a command in this process."""
    try:
        code = main(list(arguments))
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


# ---- help and suggestions --------------------------------------------------------------------------------------------


def test_kdtune_alone_shows_every_command_under_what_one_wants_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(capsys)
    assert code == EXIT_OK
    headings = [line for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings[0] == "Run a sweep or a trial:"
    assert len(headings) == 5
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ") and not line.startswith("    ")]
    _, _, refusal = told(capsys, "xxxx")
    assert f"(allowed: {', '.join(listed)})" in refusal
    assert told(capsys, "data")[0] == EXIT_OK


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["swep", "x"], "'swep' is not a command, did you mean sweep?"),
        (["data", "prepar"], "'prepar' is not a command, did you mean prepare?"),
        (["status", "--folow"], "unknown option --folow, did you mean --follow?"),
        (["sweep", "x", "--backend", "inproces"], "did you mean inprocess?"),
        (["plan", "lamda_tau"], "did you mean lambda_tau.yaml?"),
        (["plan", "sweeps/lamda_tau.yaml"], "did you mean sweeps/lambda_tau.yaml?"),
        (["plan", "lambda_tau", "--set", "student.backbnoe=r3d"], "did you mean backbone?"),
        (["plan", "lambda_tau", "--set", "backbone=r3d"], "did you mean student.backbone?"),
        (["plan", "lambda_tau", "--set", "student.backbone=r3"], "got 'r3', did you mean r3d?"),
        (["plan", "lambda_tau", "--set", "search.space.lamda=[1]"], "did you mean lambda?"),
        (["train", "lambda_tau", "--set", "teacher=c3"], "unknown teacher, got 'c3', did you mean c3d?"),
    ],
    ids=lambda value: " ".join(value[-1:]) if isinstance(value, list) else "",
)
def test_what_was_meant_is_suggested(
    arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    code, _, said = told(capsys, *arguments)
    assert code == EXIT_USER_ERROR
    assert meant in said
    assert "literal[" not in said
    assert max(map(len, said.splitlines())) < 300


# ---- pasting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "printed", "folder"),
    [
        ([".venv/bin/kdtune"], ".venv/bin/kdtune", ROOT),
        ([".venv/bin/python", "-m", "kdtune"], ".venv/bin/python -m kdtune", ROOT),
        (["kdtune"], "kdtune", ROOT / "docs"),
        (["python", "-m", "kdtune"], "python -m kdtune", ROOT),
        ([str(KDTUNE)], str(KDTUNE), ROOT / "docs"),
    ],
    ids=["script", "module", "activated", "activated module", "elsewhere"],
)
def test_a_printed_command_is_the_one_that_was_called(call: list[str], printed: str, folder: Path) -> None:
    if not (ROOT / ".venv").exists() or KDTUNE.parent != ROOT / ".venv" / "bin":
        pytest.skip("kdtune is not installed in .venv")
    activated = "/" not in call[0]
    path = f"{KDTUNE.parent}:{os.environ['PATH']}" if activated else "/usr/bin:/bin"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    line = shlex.join([*call, "plan", "--help"])
    done = subprocess.run(["sh", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert f"example: {printed} plan paper.yaml" in " ".join(done.stdout.split())


def test_a_python_without_the_packages_says_which_one_has_them(tmp_path: Path) -> None:
    # -S: without the packages of this environment.
    command = [sys.executable, "-S", "-m", "kdtune", "plan", "my sweep.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_USER_ERROR
    assert done.stderr.startswith("kdtune: kdtune is not installed for this Python, which has no ")
    assert "make install" in done.stderr or ".venv/bin/python -m kdtune plan 'my sweep.yaml'" in done.stderr
    assert "Traceback" not in done.stderr


# ---- completion ------------------------------------------------------------------------------------------------------


def test_completion_knows_commands_options_files_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "deep.yaml").write_text("name: deep")
    (tmp_path / "runs" / "sweeps" / "ran").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert {"mine.yaml", "lambda_tau.yaml", "folder/"} <= set(sweep_files(""))
    assert sweep_files("folder/d") == ["folder/deep.yaml"]
    assert {"lambda=", "student.backbone=", "search="} <= set(set_paths(""))
    assert sweep_names("", argparse.Namespace(store="s3://bucket/runs")) == []

    def completed(line: str) -> list[str]:
        """Return the words that a shell gets for `line`, through argcomplete's protocol."""
        variables = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
        code = "import os, sys; os.dup2(1, 8); from kdtune.cli import main; sys.argv = ['kdtune']; main()"
        environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
        return done.stdout.split("\n")

    assert [word.strip() for word in completed("kdtune swe")] == ["sweep"]
    assert "--accuracies" in [word.strip() for word in completed("kdtune results x --acc")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_code_is_printed_for_a_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(capsys, "completion", shell)
    assert code == EXIT_OK
    assert "kdtune" in out
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=out, text=True, check=False).returncode == 0
