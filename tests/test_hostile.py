"""Every command with hostile names, paths and URLs: a message and an exit code, and nothing written elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fabricated import fabricate, sweep_of, usual_figure
from fuzzing import fuzz, fuzzed
from hypothesis import strategies as st

from kdtune.cli import main
from kdtune.commands import process
from kdtune.store import StoreFiles, remote
from kdtune.urls import forget

SECRET = "SEKRIT"
SWEEP = "swept"
#: Exit codes that a command may return.
CODES = (0, 1, 2, 130)
PIECES = [
    *("..", ".", "/", "\0", "\n", "\t", " ", "-", "%s", "{0}", "~", "*", "?", "x", "s", "é", "\\", "'", '"', "$(id)"),
    *("\ud800", "\udcff", "x" * 300, "/etc/passwd", "/dev/null", "/proc/self/mem", "afile", "afolder", "loop", "nan"),
]


def below(text: str) -> str:
    """Return a path unchanged if it leads to a file, else a relative one, so that nothing is created at the root."""
    if not text.startswith("/"):
        return text
    there = "\0" not in text and Path(text.encode(errors="replace").decode()).is_file()
    return text if there or text in ("/dev/null", "/proc/self/mem") else text.lstrip("/")


NAMES = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=2)), max_size=5).map("".join)
PATHS = NAMES.map(below)
SCHEMES = ["ftp://", "http://", "nonsense://", "file://", "memory://", "://", "sqlite:///", "sqlite://", "http:/", ""]
LOGINS = ["", f"u:{SECRET}@", f"u:{SECRET}@x@", f"u:{SECRET}/x@", f"u:%zz{SECRET}@", f":{SECRET}@", f"u:1/{SECRET}@"]
HOSTS = ["127.0.0.1:1", "[::1", "", "127.0.0.1:99999", "127.0.0.1:x", "[::1]:1"]
QUERIES = ["", "/runs", f"/?token={SECRET}", f"/x?X-Amz-Signature={SECRET}#a=b", "/../x", "/\n", "/\udcff"]
URLS = st.tuples(*map(st.sampled_from, (SCHEMES, LOGINS, HOSTS, QUERIES))).map("".join)

BY_NAME: dict[str, Callable[[str], list[str]]] = {
    "results": lambda text: ["results", text],
    "report": lambda text: ["report", text],
    "status": lambda text: ["status", text],
    "follow": lambda text: ["status", text, "--follow"],
    "publish": lambda text: ["publish", text],
    "replay": lambda text: ["replay", text],
    "stage": lambda text: ["replay", SWEEP, "--from", text],
    "logs": lambda text: ["logs", text],
    "stop": lambda text: ["stop", text],
    "format": lambda text: ["results", SWEEP, "--format", text],
    "port": lambda text: ["ui", "--port", text],
}
BY_PATH: dict[str, Callable[[str], list[str]]] = {
    "plan": lambda text: ["plan", text],
    "sweep": lambda text: ["sweep", text],
    "train": lambda text: ["train", text],
    "prepare": lambda text: ["data", "prepare", text],
    "synth": lambda text: ["data", "synth", text, "--groups", "0"],
    "import": lambda text: ["teacher", "import", text],
    "import by": lambda text: ["teacher", "import", "afile", "--trial", text],
    "out": lambda text: ["report", SWEEP, "--out", text],
    "store": lambda text: ["status", "--store", text],
    "results in": lambda text: ["results", SWEEP, "--store", text],
    "write in": lambda text: ["data", "prepare", "trial.yaml", "--store", text],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with a store `runs` of one sweep, and things that are no stores."""
    folder = tmp_path_factory.mktemp("doors") / "below" / "cwd"
    folder.mkdir(parents=True)
    fabricate(StoreFiles(folder / "runs"), sweep_of({"candidates": 1, "seeds": [0]}, name=SWEEP), usual_figure)
    (folder / "afile").touch()
    (folder / "afolder").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "trial.yaml").write_text("data: {dataset: synthetic, root: afile}\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("KDTUNE_STORE", "runs")
        patched.setenv("KDTUNE_CACHE", str(folder / "runs" / "cache"))
        patched.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")  # nobody listens there
        patched.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        patched.setenv(process.DEBUG, "1")  # bugs are raised
        patched.setattr(remote, "FIRST_PATIENCE_S", 0.0)
        # Replace what takes seconds and runs only after the checks.
        patched.setattr("kdtune.report.write.write_report", lambda store, record, folder, shares: [folder / "page"])
        patched.setattr("kdtune.sweep.importance.importances", lambda files, record: {})
        patched.setattr("os.execve", lambda *_: None)
        yield folder


def ended(arguments: list[str]) -> int:
    """Return the exit code; 0 where `ui` would have become MLflow's server."""
    try:
        return main(arguments) or 0
    except SystemExit as refusal:  # raised by argparse
        return int(refusal.code or 0)
    finally:
        forget()


def written(place: Path) -> set[Path]:
    """Return what is around the store, and the names in it."""
    around = {path for path in place.parents[1].rglob("*") if not path.is_relative_to(place / "runs")}
    return around | set((place / "runs").glob("*/*"))


def check(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, said = ended(arguments), capsys.readouterr()
    assert code in CODES
    assert code != 2 or re.search(r"^kdtune( \w+)*: ", said.err, re.MULTILINE), said.err
    assert "Traceback" not in said.err
    assert SECRET not in said.err + said.out


@pytest.mark.parametrize("command", BY_NAME)
@fuzzed
def test_names(command: str, examples: int, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = written(place)
    fuzz(lambda name: check(BY_NAME[command](name), capsys), NAMES, examples=max(10, examples // len(BY_NAME)))
    new = {path.relative_to(place.parents[1]) for path in written(place) - before}
    assert {path for path in new if path.parts[-2] not in ("locks", "reports", "mirror")} == set()


@pytest.mark.parametrize("command", BY_PATH)
@fuzzed
def test_paths(command: str, examples: int, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fuzz(lambda path: check(BY_PATH[command](path), capsys), PATHS, examples=max(10, examples // len(BY_PATH)))


@pytest.mark.parametrize("command", [["status"], ["results", SWEEP], ["replay", SWEEP]], ids=lambda command: command[0])
@fuzzed
def test_urls_of_stores(command: list[str], examples: int, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fuzz(lambda url: check([*command, "--store", url], capsys), URLS, examples=max(10, examples // 10))


@pytest.mark.parametrize("command", [["ui"], ["results", SWEEP]], ids=lambda command: command[0])
@fuzzed
def test_urls_of_mlflow(command: list[str], examples: int, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def check_uri(uri: str) -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("MLFLOW_TRACKING_URI", uri)
            check(command, capsys)

    fuzz(check_uri, URLS, examples=max(10, examples // 10))
