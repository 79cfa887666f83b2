"""Shared by tests of clusters: commands, nodes of `ray start`, waiting, and the figures of a whole store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml
from helpers import ROOT
from servers import free_port

from kdtune.store import StoreFiles
from kdtune.train.replay import CLOCK

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a kdtune command: MLflow's database in `folder`, and only the named Ray cluster."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_AUTH", "RAY_ADDRESS"))}
    # As in an activated environment, a job's `python` must be the one that runs the tests.
    paths = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return {**ours, **paths, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", **more}


def kdtune(*arguments: object, env: Mapping[str, str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kdtune", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=400)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Return the text of a refusal, which must be one message without a traceback."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("kdtune: ") == 1, done.stderr
    return done.stderr


class Said:
    """A command in its own process. Its output goes to a file that can be read while it runs."""

    def __init__(self, command: Sequence[object], folder: Path, env: Mapping[str, str]) -> None:
        self.path = folder / f"said_{time.monotonic_ns()}.txt"
        with self.path.open("w") as file:
            self.process = subprocess.Popen(
                [str(part) for part in command], cwd=ROOT, env=env, stdout=file, stderr=file, start_new_session=True
            )

    @property
    def text(self) -> str:
        return self.path.read_text()

    def ended(self, seconds: float = 400) -> int:
        return self.process.wait(seconds)

    def end(self) -> None:
        """Kill the command and everything that it started."""
        if self.process.poll() is None:
            family = [self.process, *psutil.Process(self.process.pid).children(recursive=True)]
            for each in family:
                each.kill()
            psutil.wait_procs(family[1:], timeout=30)
        self.process.wait()


def until(condition: Callable[[], object], what: str, said: Said | None = None, seconds: float = 240) -> None:
    """Wait until `condition` holds. Fail if the given command ends first."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds} s still not: {what}\n{said and said.text}"
        assert said is None or said.process.poll() is None, f"it ended before {what}: {said.text}"
        time.sleep(0.05)


@contextmanager
def ray_node(*arguments: object, folder: Path, env: Mapping[str, str], within: Sequence[object] = ()) -> Iterator[Said]:
    """Run `ray start` with `arguments` until the context ends, through the command `within` if one is given."""
    start = [
        *within,
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        *arguments,
        f"--dashboard-agent-listen-port={free_port()}",  # another cluster here may use the default one
        "--block",
        "--disable-usage-stats",
    ]
    node = Said(start, folder, env)
    try:
        until(lambda: "Ray runtime started" in node.text, "a node has started", node)
        yield node
    finally:
        node.end()


def longer(sweep_form: dict[str, Any], folder: Path) -> Path:
    """Write that sweep's file with trials of sixteen epochs, long enough for nodes to come and go."""
    trial = {**sweep_form["trial"], "epochs": 16, "stages": {"early": 2, "late": 16}}
    file = folder / "longer.yaml"
    file.write_text(yaml.safe_dump({**sweep_form, "trial": trial}, sort_keys=False))
    return file


def sweep(file: Path, folder: Path, env: Mapping[str, str], *more: object, within: Sequence[object] = ()) -> Said:
    """Start the command `sweep` with its store in `folder`."""
    command = [*within, sys.executable, "-m", "kdtune", "sweep", file, "--store", folder / "runs", *more]
    return Said(command, folder, env)


def in_work(raylet: int) -> list[str]:
    """Return the keys of the trials that workers of this raylet's node are training, by the locks that they hold."""
    held = []
    for worker in _family(raylet):
        with suppress(psutil.Error):  # the process has just ended
            held += [Path(file.path).name for file in worker.open_files()]
    return [name.removeprefix("trial-").removesuffix(".lock") for name in held if name.startswith("trial-")]


def in_the_midst(raylet: int, folder: Path) -> bool:
    """Return whether one of those trials is between two of its epochs."""
    trials = (StoreFiles(folder / "runs").trial(key) for key in in_work(raylet))
    return any(files.rows() and files.result() is None for files in trials)


def _family(process: int) -> list[psutil.Process]:
    try:
        return psutil.Process(process).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def raylet_of(node: Said) -> int:
    """Return the process of the raylet that a `ray start` started."""
    # A worker that the raylet has just forked has the raylet's name until it executes its own program.
    born = {}
    for each in _family(node.process.pid):
        with suppress(psutil.NoSuchProcess):  # the process has just ended
            if each.name() == "raylet":
                born[each.create_time()] = each.pid
    return born[min(born)]


def records(folder: Path) -> dict[str, tuple[list[dict[str, Any]], dict[str, Any] | None]]:
    """Return all figures of all epochs and the result of every trial in a store, without times."""
    found = {}
    for files in StoreFiles(folder / "runs").trials():
        rows = [{name: value for name, value in row.items() if name not in CLOCK} for row in files.rows()]
        result = files.result()
        found[files.key] = rows, result and result["weights_sha256"]
    return found
