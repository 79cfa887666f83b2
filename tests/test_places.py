"""Unusable places are refused in one message before any work: nothing is decoded, trained or left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from fabricated import fabricate, sweep_of, usual_figure
from helpers import ROOT, kdtune, refused

from kdtune.cli import main
from kdtune.store import StoreFiles

SEARCH = {"space": {"student.width": [4, 8]}, "sampler": "grid"}
#: Commands that write to the store, and commands that only read it.
WRITING = (["data", "prepare", "trial.yaml"], ["train", "trial.yaml"], ["report", "s"], ["publish", "s"])
READING = (["status"], ["results", "s"], ["teacher", "list"], ["plan", "sweep.yaml"])


@pytest.fixture
def work(eight_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a trial file, a sweep file, a file, and links that lead nowhere."""
    trial = {"data": {"dataset": "synthetic", "root": str(eight_videos)}, "clip": {"frames": 8, "size": 32}}
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump(trial))
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"name": "s", "trial": trial, "search": SEARCH}))
    (tmp_path / "afile").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A read-only file system with a store of one sweep."""
    folder = tmp_path / "ro"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        fabricate(StoreFiles(folder / "runs"), sweep_of({"candidates": 1, "seeds": [0]}), usual_figure)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield folder / "runs"
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up root's rights to files within the block; skip where that is impossible."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def problem(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the only problem of a refusal."""
    capsys.readouterr()
    assert main(arguments) == 2
    said = capsys.readouterr().err
    first, second = said.splitlines()
    assert first == "kdtune: 1 problem", said
    return second.strip()


@pytest.mark.parametrize("store", ["afile", "afile/below", "dangling", "loop", "/dev/null", "x" * 300, "\udcff", "a\0"])
@pytest.mark.parametrize("command", [*WRITING, *READING], ids=" ".join)
def test_a_store_that_is_no_folder(
    command: list[str], store: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(work.iterdir())
    said = problem([*command, "--store", store], capsys)
    assert said.startswith("argument: holds a NUL" if "\0" in store else "--store: ")
    assert sorted(work.iterdir()) == before


@pytest.mark.parametrize("command", WRITING, ids=" ".join)
def test_a_store_that_cannot_be_written(
    command: list[str], work: Path, read_only: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = problem([*command, "--store", str(read_only)], capsys)
    allowed = "(allowed: a folder that can be written to, or made)"
    assert said == f"--store: {read_only} cannot be written: Read-only file system {allowed}"


@pytest.mark.parametrize("command", [["status"], ["results", "s"], ["plan", "sweep.yaml"]], ids=" ".join)
def test_a_store_that_cannot_be_written_can_be_read(
    command: list[str], work: Path, read_only: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--store", str(read_only)]) == 0


@pytest.mark.slow
def test_the_report_of_a_store_that_cannot_be_written(work: Path, read_only: Path) -> None:
    assert main(["report", "s", "--store", str(read_only), "--out", str(work / "out")]) == 0
    assert (work / "out" / "report.html").exists()


def test_somebody_else_s_store(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--store", "mine"]) == 0  # imports happen before the rights are given up
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        store = Path(folder) / "runs"
        store.mkdir(mode=0o755)
        for mode, command, verb in ((0o755, "data prepare", "written"), (0o700, "status", "read")):
            store.chmod(mode)
            file = [str(work / "trial.yaml")] if command != "status" else []
            with as_nobody():
                code = main([*command.split(), *file, "--store", str(store)])
            assert code == 2
            assert f"--store: {store} cannot be {verb}: Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["report", "s", "--store", "runs", "--out", "afile"], "--out: afile cannot be read: Not a directory"),
        (["report", "s", "--store", "runs", "--out", "afile/x"], "--out: afile/x cannot be read: Not a directory"),
        (["report", "../evil", "--store", "runs"], "holds no sweep named '../evil' (allowed: s)"),
        (["results", "/etc/passwd", "--store", "runs"], "holds no sweep named '/etc/passwd' (allowed: s)"),
        (["data", "synth", "afile"], "afile cannot be read: Not a directory"),
        (["data", "synth", "afile/x"], "afile/x cannot be read: Not a directory"),
        (["status", "--store", ""], "--store: names no folder, got ''"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_other_places(command: list[str], words: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fabricate(StoreFiles("runs"), sweep_of({"candidates": 1, "seeds": [0]}), usual_figure)
    assert words in problem(command, capsys)
    assert not (work.parent / "evil").exists()
    assert not (Path("runs") / "evil").exists()


@pytest.mark.parametrize("port", ["0", "-1", "99999", "x", "٣"])
def test_ports(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        main(["ui", "--port", port])
    assert refusal.value.code == 2
    assert "must be a port from 1 to 65535" in capsys.readouterr().err


def test_a_database_that_is_a_folder(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (work / "folder").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{work}/folder")
    assert "there is no database at" in problem(["ui"], capsys)


def test_a_working_directory_that_is_gone(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "gone").mkdir()
    os.chdir(work / "gone")
    (work / "gone").rmdir()
    try:
        assert problem(["status"], capsys).startswith("working directory: cannot be used")
    finally:
        os.chdir(work)


def test_a_folder_of_videos_that_cannot_be_read(
    eight_videos: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        videos, store = Path(folder) / "videos", Path(folder) / "runs"
        for action in ("Rise", "SpinLeft"):
            (videos / action).mkdir(parents=True)
            for video in eight_videos.glob(f"**/{action}/*"):
                (videos / action / video.name).write_bytes(video.read_bytes())
        (Path(folder) / "trial.yaml").write_text(f"data: {{dataset: folder, root: {videos}}}\n")
        (videos / "Rise").chmod(0)
        with as_nobody():
            code = main(["data", "prepare", f"{folder}/trial.yaml", "--store", str(store)])
        assert code == 2
        assert str(videos / "Rise") in capsys.readouterr().err
        assert not list(store.glob("clips/*"))


# ---- streams: processes of their own ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("schema >/dev/full", 2, "kdtune: the output cannot be written: No space left on device\n"),
        ("results x --store afolder >&-", 2, "kdtune: 1 problem\n"),
        ("status --store afolder >&- 2>&-", 0, ""),
        ("schema | head -1 >/dev/null", 0, ""),
    ],
)
def test_streams(command: str, code: int, said: str, tmp_path: Path) -> None:
    shell = f"set -o pipefail; '{sys.executable}' -m kdtune {command}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = ["bash", "-c", shell]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(said)
    assert done.stderr == said or said.endswith("problem\n")


@pytest.mark.slow
def test_a_file_may_not_grow(tmp_path: Path) -> None:
    """A process that may write only 4 KiB to a file shows no traceback."""
    import resource

    form = {"data": {"dataset": "synthetic"}, "clip": {"frames": 8, "size": 32}}
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump(form))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # as in a child process, too
    try:
        done = kdtune("data", "prepare", str(tmp_path / "trial.yaml"), cwd=tmp_path, store=tmp_path / "runs")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in refused(done)
