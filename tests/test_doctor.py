"""The doctor: what keeps a machine from training, by name, and the output of its command."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock, SoftFileLock
from helpers import run_python

from kdtune.cli import main
from kdtune.doctor import examine as doctor
from kdtune.doctor.examine import PACKED, TRIAL, Finding, optional_package, store_folder
from kdtune.errors import EXIT_FAILED_TRIALS, EXIT_OK, EXIT_USER_ERROR
from kdtune.store import StoreFiles

# ---- the machine -----------------------------------------------------------------------------------------------------


class Unlocked(StoreFiles):
    """Simulate a file system whose locks no other machine sees."""

    def lock_here(self, name: str) -> FileLock:
        return super().lock_here(f"{name}-{os.getpid()}")


class Outlived(StoreFiles):
    """Simulate a file system whose locks stay when their holder dies."""

    def lock_here(self, name: str) -> Any:
        (self.root / "locks").mkdir(exist_ok=True)
        return SoftFileLock(self.root / "locks" / name)


def test_a_store_that_works_is_left_as_it_was(tmp_path: Path) -> None:
    finding = store_folder(StoreFiles(tmp_path))
    assert finding.state == "ok"
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["locks"]


def test_a_store_that_cannot_be_written_to_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finding = store_folder(StoreFiles(tmp_path / "file" / "runs"))
    assert (finding.name, finding.state) == ("store", "problem")
    assert f"{tmp_path}/file/runs cannot be read: Not a directory" in finding.text


def test_a_lock_that_does_not_exclude_is_noticed(tmp_path: Path) -> None:
    finding = store_folder(Unlocked(tmp_path))
    assert finding.state == "problem"
    assert finding.text.endswith("a lock does not exclude: two processes can hold it at once")


def test_a_lock_that_outlives_its_holder_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "FREED_S", 0.1)
    finding = store_folder(Outlived(tmp_path))
    assert finding.state == "problem"
    assert finding.text.endswith("a lock outlives its holder: after a crash no process can take it")


def test_torchvision_of_another_release_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # Python refuses to import it
    finding = optional_package("torchvision")
    assert finding.state == "problem"
    assert f"cannot be imported with torch {version('torch')}; their versions must match: " in finding.text


#: An installation without some packages: they cannot be imported, and have no metadata.
WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in {names!r} else super().find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, *context):
        return [found for found in PathFinder.find_distributions(*context) if found.name not in {names!r}]

sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.mark.slow
def test_without_what_only_sweeps_need_the_trainer_is_examined_all_the_same(tmp_path: Path) -> None:
    absent = ("torchvision", "ray", "optuna", "mlflow", "av", "decord")
    code = f"""
from kdtune.store import StoreFiles
from kdtune.doctor.examine import TRIAL, examine
if __name__ == "__main__":
    for finding in examine(StoreFiles({str(tmp_path)!r}), "cpu", full=False):
        print(finding)
        if finding.name == TRIAL:
            break
"""
    lines = run_python(WITHOUT.format(names=absent) + code).stdout.splitlines()
    states = {line.split()[1]: line.split()[0] for line in lines}
    assert {name: states[name] for name in absent} == dict.fromkeys(absent, "note")
    assert states["trainer"] == states["store"] == states[TRIAL] == "ok"


def test_without_torch_the_doctor_says_so_and_ends(tmp_path: Path) -> None:
    code = f"""
from kdtune.cli import main
if __name__ == "__main__":
    sys.exit(main(["doctor", "--store", {str(tmp_path)!r}]))
"""
    done = run_python(WITHOUT.format(names=("torch", "numpy")) + code, check=False)
    assert done.returncode == EXIT_FAILED_TRIALS
    assert "problem  trainer      not installed: torch, numpy; " in done.stdout
    assert done.stdout.endswith("\n1 problem\n")
    assert TRIAL not in done.stdout


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "code", "last"),
    [
        (("ok", "note", "ok"), EXIT_OK, "ready: every trial repeated its bits (2/2)"),
        (("ok", "problem", "ok"), EXIT_FAILED_TRIALS, "1 problem"),
        (("problem", "note", "problem"), EXIT_FAILED_TRIALS, "2 problems"),
    ],
)
def test_the_last_line_and_the_exit_code_say_whether_it_is_ready(
    states: tuple[Any, ...], code: int, last: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("store", TRIAL, PACKED)
    findings = [Finding(name, state, "text") for name, state in zip(names, states, strict=True)]
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: iter(findings))
    assert main(["doctor"]) == code
    assert capsys.readouterr().out.splitlines() == [*map(str, findings), last]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--device", "cuda", "--store", str(tmp_path / "runs")]) == EXIT_USER_ERROR
    said = capsys.readouterr()
    assert "--device: got cuda, but torch sees no GPU" in said.err
    assert said.out == ""
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_whole_examination_of_this_cpu(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdtune.doctor.sockets.listening", list)  # other tests' clusters may be listening
    assert main(["doctor", "--device", "cpu", "--store", str(tmp_path)]) == EXIT_OK
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1] == "ready: every trial repeated its bits (12/12)"
    assert {line.split()[0] for line in lines[:-1]} <= {"ok", "note"}
    assert sum(line.startswith("ok       trial ") for line in lines) == 11
