"""Install the lowest versions that pyproject.toml allows, and run a smoke test on them: `make floors`.

    python tests/floors.py .venv-floors

A floor is true if the package installs with all the others at their floors, and kdtune works on it. The resolver
(uv, `--resolution lowest-direct`) takes the lowest version of each direct dependency that the others allow: where that
lies above its floor, no installation has the floor, and this script fails with the version to write down. It downloads
about 3 GB, so it is not part of `make test`; run it when a floor, or the use of a library, changes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: What the tests below import beside kdtune's own dependencies.
TESTING = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "pyyaml")
#: Test files that touch most libraries: YAML, pydantic, decoders, torch, pandas, MLflow's database.
TESTS = ("test_api.py", "test_decode.py", "test_students.py", "test_sweep_file.py")
#: A sweep of 5 trials on 32 small videos, through Ray, Optuna and MLflow.
SMALL = {
    "search.blocks": "{}",
    "search.candidates": "2",
    "epochs": "2",
    "stages": "{early: 1, late: 2}",
    "teachers.c3d.epochs": "1",
    "teachers.c3d.stages": "{late: 1}",
    "teachers.r3d.epochs": "1",
    "teachers.r3d.stages": "{late: 1}",
    "search.seeds": "[0]",
    "prune.at": "[early]",
    "student.width": "8",
    "data.validation": "0.3",
}


def main(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    run(python, "-m", "pip", "install", "--quiet", "uv")
    lowest = folder / "lowest.txt"
    uv = (folder / "bin" / "uv", "pip")
    run(*uv, "compile", "--quiet", "--resolution", "lowest-direct", "--python", python, "pyproject.toml", "-o", lowest)
    if raised := untrue(lowest.read_text()):
        print("\n".join(f"pyproject.toml: {line}" for line in raised))
        return 1
    run(*uv, "install", "--quiet", "--python", python, "-r", lowest, *TESTING)
    run(*uv, "install", "--quiet", "--python", python, "--no-deps", "--editable", ".")
    smoke(python, folder.absolute() / "smoke")
    run(python, "-m", "pytest", "-q", "-x", "-m", "not slow", *(f"tests/{name}" for name in TESTS))
    print("all floors are true")
    return 0


def untrue(lowest: str) -> list[str]:
    """Return the dependencies whose lowest version that can be installed is not the one that pyproject.toml names."""
    installed = dict(re.findall(r"^([a-z0-9_.-]+)==(\S+)", lowest, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = []
    for requirement in project["dependencies"]:
        name, floor = re.match(r"([A-Za-z0-9_.-]+)(?:\[.*?\])?>=([0-9.]+)", requirement).groups()  # type: ignore[union-attr]
        version = installed.get(name)
        if version is not None and numbers(version) != numbers(floor):
            found.append(f"{name}>={floor} cannot be installed with the other floors; {version} is the lowest that can")
    return found


def numbers(version: str) -> list[int]:
    """Return the numbers of a version without the zeros at its end: 2.0 and 2.0.0 are one."""
    parts = [int(part) for part in re.findall(r"\d+", version)]
    while parts and parts[-1] == 0:
        parts.pop()
    return parts


def smoke(python: Path, place: Path) -> None:
    """Run a small sweep and what reads it. Raises CalledProcessError or AssertionError where something is wrong."""
    place.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "KDTUNE_STORE": str(place / "runs"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{place / 'mlflow' / 'mlflow.db'}",
        "PYTHONWARNINGS": "ignore",
    }
    kdtune = (python, "-m", "kdtune")
    run(*kdtune, "--help", env=environment)
    if not (place / "videos").exists():
        run(*kdtune, "data", "synth", place / "videos", "--groups", "4", "--clips", "1", env=environment)
    sets = [f"--set={name}={value}" for name, value in {**SMALL, "data.root": str(place / "videos")}.items()]
    run(*kdtune, "plan", "sweeps/lambda_tau.yaml", *sets, env=environment)
    said = run(*kdtune, "sweep", "sweeps/lambda_tau.yaml", *sets, env=environment)
    assert "note: MLflow" not in said, "MLflow lacks something"
    run(*kdtune, "results", "lambda_tau", "--format", "latex", env=environment)
    run(*kdtune, "replay", "lambda_tau", "--sample", "1", env=environment)
    run(*kdtune, "publish", "lambda_tau", env=environment)


def run(*command: object, env: dict[str, str] | None = None) -> str:
    """Run a command in the repository root, show what it says, and return that. Raises CalledProcessError."""
    words = [str(part) for part in command]
    print(f"$ {' '.join(words)}", flush=True)
    done = subprocess.run(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout[-4000:], flush=True)
    done.check_returncode()
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".venv-floors").absolute()))
