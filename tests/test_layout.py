"""The tree's layout and layers (DESIGN 3): which files may be where, and which modules import which."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import ROOT, run_python

HEAVY = ("torch", "torchvision", "ray", "mlflow", "optuna", "pandas", "numpy", "matplotlib", "scipy")
MODULES = sorted((ROOT / "kdtune").rglob("*.py"))


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_the_folder_mlflow_holds_no_python() -> None:
    assert (ROOT / "mlflow").is_dir()
    assert [str(path) for path in (ROOT / "mlflow").rglob("*.py")] == []


def test_mlflow_is_the_package_from_the_repository_root() -> None:
    # An empty first entry of sys.path is the working directory: here, the one with the folder mlflow/.
    code = """
import importlib.util, json, sys
spec = importlib.util.find_spec("mlflow")
print(json.dumps([sys.path[0], spec.origin]))
"""
    first, origin = json.loads(run_python(code).stdout)
    assert first == ""
    assert origin is not None, "the folder mlflow/ hides the package"
    assert Path(origin).name == "__init__.py"
    assert ROOT / "mlflow" not in Path(origin).parents


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["sweep", "--help"], ["results", "--help"]], ids=" ".join
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import runpy, sys
sys.argv = ["kdtune", *{arguments!r}]
try:
    runpy.run_module("kdtune", run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert end.code == 0, end.code
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    assert run_python(code).stdout.splitlines()[-1] == "[]"


def test_plan_imports_neither_torch_nor_ray_nor_mlflow_nor_optuna(tmp_path: Path) -> None:
    code = f"""
import sys
from kdtune.cli import main
assert main(["plan", "sweeps/lambda_tau.yaml", "--store", {str(tmp_path)!r}]) == 0
print([name for name in ("torch", "ray", "mlflow", "optuna") if name in sys.modules])
"""
    assert run_python(code).stdout.splitlines()[-1] == "[]"


def importing(names: list[str], blocked: tuple[str, ...]) -> str:
    return f"""
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
for name in {blocked!r}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(f"{{name}} was not blocked")
for name in {names!r}:
    importlib.import_module(name)
print("imported", len({names!r}))
"""


#: Modules that read or write video files. A machine that trains on prepared clips has no use for them.
OF_VIDEOS = ("build", "decode", "duplicates", "geometry", "headers", "motion", "opening", "parts", "pictures")
OF_VIDEOS += ("promise", "repair", "survey", "synthetic")


def trainers() -> list[str]:
    layers = ("clips", "models", "losses", "train")
    return [name_of(file) for file in MODULES if file.relative_to(ROOT).parts[1] in layers]


def test_the_trainer_runs_without_ray_optuna_mlflow_and_decoders() -> None:
    names = [name for name in trainers() if name.rsplit(".", 1)[-1] not in OF_VIDEOS]
    assert "kdtune.train.trial" in names
    done = run_python(importing(names, ("ray", "optuna", "mlflow", "decord", "av")))
    assert done.stdout == f"imported {len(names)}\n"


def test_videos_are_read_without_decord_and_torch() -> None:
    names = [name for name in trainers() if name.rsplit(".", 1)[-1] in OF_VIDEOS]
    assert len(names) >= len(OF_VIDEOS)
    done = run_python(importing(names, ("ray", "optuna", "mlflow", "decord", "torch")))
    assert done.stdout == f"imported {len(names)}\n"


def test_configuration_store_and_data_need_no_torch() -> None:
    names = [
        name_of(file)
        for file in MODULES
        if file.relative_to(ROOT).parts[1] in ("config", "errors.py", "files.py", "store.py", "clips")
        and file.name not in ("augment.py", "pretext.py")  # torch is imported from there up
    ]
    done = run_python(importing(names, ("torch", "torchvision", "ray", "optuna", "mlflow")))
    assert done.stdout == f"imported {len(names)}\n"


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_holds_more_than_one_thing(file: Path) -> None:
    lines = file.read_text().count("\n")
    assert lines <= 260, f"{file.relative_to(ROOT)} has {lines} lines: it probably holds two things"
