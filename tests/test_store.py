"""The store's files: whole or absent (DESIGN 4.2), made by one process at a time, and readable after a crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import Timeout
from helpers import ROOT, run_python

from kdtune.cli import main
from kdtune.errors import EXIT_USER_ERROR
from kdtune.store import STORE_VERSION, StoreFiles
from kdtune.store.files import append_jsonl, read_json, read_jsonl, write_atomic, write_json


def child(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)


# ---- atomic writes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_process_killed_while_writing_leaves_the_old_content(tmp_path: Path, step: str) -> None:
    path = tmp_path / "folder" / "file"
    write_atomic(path, "old")
    code = f"""
import os, signal
from pathlib import Path
from kdtune.store.files import write_atomic
os.{step} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_atomic(Path({str(path)!r}), b"new" * 1_000_000)
"""
    assert run_python(code, check=False).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    write_atomic(path, "newer")
    assert path.read_text() == "newer"


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    size = 3_000_000
    write_atomic(path, b"a" * size)
    code = f"""
from pathlib import Path
from kdtune.store.files import write_atomic
print("ready", flush=True)
while True:
    for letter in (b"b", b"a"):
        write_atomic(Path({str(path)!r}), letter * {size})
"""
    writer = child(code)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        seen = set()
        for _ in range(300):
            content = path.read_bytes()
            assert len(content) == size
            assert content == content[:1] * size
            seen.add(content[:1])
            if len(seen) == 2 and _ > 20:
                break
        assert seen == {b"a", b"b"}
    finally:
        writer.kill()  # SIGKILL at an arbitrary moment
        writer.wait()
    content = path.read_bytes()
    assert content in (b"a" * size, b"b" * size)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    write_atomic(path, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_json_comes_back_as_it_was_written(tmp_path: Path) -> None:
    content = {"λ": 0.1 + 0.2, "list": [1, None, True], "text": "Zürich ‖ κ"}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    assert read_json(tmp_path / "absent.json") is None


# ---- lines -----------------------------------------------------------------------------------------------------------


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "rows.jsonl"
    rows = [{"n": i, "text": "line\nbreak ü"} for i in range(5)]
    for row in rows:
        append_jsonl(path, row)
    assert read_jsonl(path) == rows
    assert read_jsonl(tmp_path / "absent.jsonl") == []


@pytest.mark.parametrize("torn", ['{"n": 3, "tex', "{", '{"n": 3}', '{"n": "Zü'.encode()[:-1].decode(errors="ignore")])
def test_rows_after_a_torn_line_are_read_right(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "rows.jsonl"
    for i in range(3):
        append_jsonl(path, {"n": i})
    with path.open("a") as file:
        file.write(torn)  # what a crash in the middle of a write leaves
    assert read_jsonl(path) == [{"n": i} for i in range(3)]
    for i in (3, 4):
        append_jsonl(path, {"n": i})
    assert read_jsonl(path) == [{"n": i} for i in range(5)]


def test_a_line_torn_within_a_character_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, {"n": 0})
    with path.open("ab") as file:
        file.write('{"text": "ü'.encode()[:-1])
    assert read_jsonl(path) == [{"n": 0}]
    append_jsonl(path, {"n": 1})
    assert read_jsonl(path) == [{"n": 0}, {"n": 1}]


def test_a_torn_first_line_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 0')
    assert read_jsonl(path) == []
    append_jsonl(path, {"n": 0})
    assert read_jsonl(path) == [{"n": 0}]


# ---- locks -----------------------------------------------------------------------------------------------------------


def test_a_lock_keeps_other_processes_out_until_its_holder_dies(tmp_path: Path) -> None:
    store = StoreFiles(tmp_path)
    holder = child(f"""
import signal
from kdtune.store import StoreFiles
with StoreFiles({str(tmp_path)!r}).lock("trial-x"):
    print("held", flush=True)
    signal.pause()
""")
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Timeout):
            store.lock("trial-x").acquire(timeout=0)
        with store.lock("trial-y").acquire(timeout=0):
            pass  # other things can be made meanwhile
    finally:
        holder.kill()
        holder.wait()
    with store.lock("trial-x").acquire(timeout=10):
        pass


def test_what_two_processes_want_is_made_once(tmp_path: Path) -> None:
    code = f"""
from kdtune.store.files import append_jsonl, read_jsonl
from kdtune.store import StoreFiles
store, path = StoreFiles({str(tmp_path)!r}), __import__("pathlib").Path({str(tmp_path / "made.jsonl")!r})
for thing in range(40):
    with store.lock(f"thing-{{thing}}"):
        if thing not in [row["thing"] for row in read_jsonl(path)]:
            with store.lock("file"):
                append_jsonl(path, {{"thing": thing}})
"""
    makers = [child(code) for _ in range(2)]
    assert [maker.wait(timeout=60) for maker in makers] == [0, 0]
    assert sorted(row["thing"] for row in read_jsonl(tmp_path / "made.jsonl")) == list(range(40))


# ---- places ----------------------------------------------------------------------------------------------------------


def test_a_trials_records(tmp_path: Path) -> None:
    store = StoreFiles(tmp_path)
    files = store.trial("k")
    assert (files.rows(), files.stages(), files.result(), files.failure()) == ([], {}, None, None)
    append_jsonl(files.epochs, {"epoch": 1, "stage": "early", "evaluation": {"test": {"knn": 0.5}}})
    append_jsonl(files.epochs, {"epoch": 2})
    files.write_failure("out of memory")
    assert files.stages() == {"early": {"test": {"knn": 0.5}}}
    assert files.failure() == "out of memory"
    files.clear_failure()
    files.clear_failure()
    result = {"epochs": 2, "stages": {}, "weights_sha256": "0", "seconds": 1.0, "profile": None}
    files.write_result(result)
    assert files.failure() is None
    assert files.result() == result


def test_a_store_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = StoreFiles("runs")
    monkeypatch.chdir("/")
    assert store.root == tmp_path / "runs"


@pytest.mark.parametrize(
    "command",
    [["results", "tiny"], ["status"], ["report", "tiny"], ["teacher", "list"], ["store", "check"]],
    ids=" ".join,
)
def test_a_store_of_another_version_is_refused_by_readers_too(
    command: list[str], store: StoreFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(store.root / "store.json", {"version": STORE_VERSION - 1, "id": "an earlier one"})
    assert main([*command, "--store", str(store.root)]) == EXIT_USER_ERROR
    assert f"version {STORE_VERSION - 1}, but this kdtune needs {STORE_VERSION}" in capsys.readouterr().err
