"""No command prints or stores a password or token, whatever URL with one it is given."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from fabricated import fabricate, sweep_of, usual_figure
from fuzzing import fuzz, fuzzed
from hypothesis import strategies as st
from servers import free_port

from kdtune.cli import main
from kdtune.commands import process
from kdtune.errors import UserError
from kdtune.execute.cluster.handover import refuse_secrets, variables, withheld
from kdtune.store import StoreFiles, remote
from kdtune.store.files import append_jsonl
from kdtune.tracking.mlflow_errors import reason
from kdtune.tracking.publish import read_run_ids
from kdtune.tracking.serve import serve, ui_command, ui_environment
from kdtune.urls import SecretUrl, forget

SECRET = "SEKRIT"
#: URLs of MLflow, a database and a store; nothing listens at any of them.
TRACKING = (
    "http://alice:{}@URI@127.0.0.1:1",
    "http://127.0.0.1:1/?token={}",
    "postgresql://u:{}/x@127.0.0.1:1/db",
    "http://alice:x@{}:{}@[::1",
)
STORES = (
    "ftp://user:{}/x@127.0.0.1:1/runs",
    "nonsense://k:{}@h/x",
    "://u:{}@h",
    "http:/u:{}@h",
    "u:{}@127.0.0.1:1",
    "ftp://127.0.0.1:1/runs?token={}",
)


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(remote, "FIRST_PATIENCE_S", 0.0)
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # the login of a URI is put there
        monkeypatch.delenv(name)
    yield
    forget()


@pytest.fixture(scope="module")
def fabricated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one fabricated sweep."""
    root = tmp_path_factory.mktemp("fabricated") / "runs"
    fabricate(StoreFiles(root), sweep_of({"candidates": 2, "seeds": [0]}), usual_figure)
    return root


def kept(folder: Path) -> list[Path]:
    """Return the files that hold the secret."""
    return [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("uri", TRACKING)
@pytest.mark.parametrize("command", [["publish", "s"], ["results", "s"], ["ui"]], ids=lambda command: command[0])
def test_of_mlflow_s_place(
    command: list[str],
    uri: str,
    fabricated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(SECRET, SECRET))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    served: list[str] = []
    monkeypatch.setattr("os.execve", lambda program, command, _: served.extend([program, *command]))
    assert main([*command, "--store", str(fabricated)]) in (0, 2, None), "None: MLflow's server would be this process"
    assert SECRET not in " ".join(served)
    said = "".join(capfd.readouterr())
    assert SECRET not in said
    assert kept(fabricated) == kept(tmp_path) == []


@pytest.mark.parametrize("url", STORES)
@pytest.mark.parametrize("command", [["status"], ["results", "s"], ["report", "s"], ["replay", "s"], ["stop", "s"]])
def test_of_the_store_s(
    command: list[str], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDTUNE_CACHE", str(tmp_path / "cache"))
    assert main([*command, "--store", url.format(SECRET)]) == 2
    said = "".join(capfd.readouterr())
    assert "@" in said or "://127.0.0.1:1/runs" in said, "the place itself is named"
    assert SECRET not in said
    assert kept(tmp_path) == []


def test_of_the_default_store_in_the_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("KDTUNE_STORE", f"ftp://me:{SECRET}%s@host/runs")
    with pytest.raises(SystemExit):
        main(["status", "--help"])
    said = capsys.readouterr().out.replace("\n", "").replace(" ", "")
    assert "ftp://me@host/runs" in said
    assert SECRET not in said


def test_of_arguments_that_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ui", f"http://alice:{SECRET}@host", "--port", f"x:{SECRET}@y"])
    assert SECRET not in capsys.readouterr().err


def test_none_is_on_a_command_line_or_in_a_job(
    store: StoreFiles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = f"postgresql://u:{SECRET}@h/db"
    assert SECRET not in " ".join(ui_command(uri))
    assert ui_environment(uri) == {"MLFLOW_BACKEND_STORE_URI": uri}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("KDTUNE_CACHE", str(tmp_path))
    with pytest.raises(UserError) as refusal:
        refuse_secrets(StoreFiles(f"ftp://u:{SECRET}@h/runs"), f"http://u:{SECRET}@HEAD:8265")
    assert [problem.where for problem in refusal.value.problems] == ["--store", "MLFLOW_TRACKING_URI", "--address"]
    assert SECRET not in str(refusal.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://h")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    refuse_secrets(store, "http://HEAD:8265")
    assert variables() == {"MLFLOW_TRACKING_URI": "http://h", "MLFLOW_TRACKING_USERNAME": "me"}
    assert withheld() == ["MLFLOW_TRACKING_PASSWORD"]


def test_a_bug_s_traceback_is_kept_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(process.DEBUG, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    url = f"http://alice:{SECRET}@host"

    def broken(*_: object) -> None:
        raise RuntimeError(f"cannot parse {url}")

    monkeypatch.setattr("kdtune.commands.watch.reading", broken)
    assert main(["status", "--store", url]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "kdtune: this is a bug: RuntimeError: cannot parse http://alice@host" or "***" in first
    (file,) = tmp_path.iterdir()
    assert second.endswith(str(file))
    assert "Traceback" in file.read_text()
    assert "in broken" in file.read_text()
    assert SECRET not in first + file.read_text()
    monkeypatch.setenv(process.DEBUG, "1")
    with pytest.raises(RuntimeError):
        main(["status", "--store", url])


def test_libraries_log_none(capsys: pytest.CaptureFixture[str]) -> None:
    process.prepare([f"http://alice:{SECRET}@host"])
    try:
        raise ValueError(f"no {SECRET}")
    except ValueError as error:
        record = logging.getLogger("urllib3").makeRecord(
            "urllib3", logging.WARNING, "", 0, "retrying %s", (f"http://h/?sig={SECRET}",), (type(error), error, None)
        )
    assert SECRET not in logging.Formatter().format(record)
    thread = threading.Thread(target=lambda: int(SECRET))
    thread.start()
    thread.join()
    said = capsys.readouterr().err
    assert "ValueError" in said
    assert SECRET not in said.replace("int(SECRET)", "")


def test_run_ids_are_found_again_with_another_password(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.jsonl"
    append_jsonl(file, {"uri": str(SecretUrl.of("http://me:old@host/?x=1")), "runs": {"a": "b"}})
    assert read_run_ids(file, "http://me:new@host/?x=2") == {"a": "b"}


def check_reason(password: str, form: str) -> None:
    """A library's message or traceback that quotes the URL has no secret."""
    forget()
    url = form.replace("PW", password)
    with pytest.raises(UserError) as refusal:
        serve(url, free_port())
    assert SECRET not in str(refusal.value)
    for text in (f"bad URL {url!r}", f"invalid literal for int(): {password!r}", str(url.split("@"))):
        error = RuntimeError(text)
        assert SECRET not in reason(error, url)
        assert SECRET not in process.redact("".join(traceback.format_exception(error)))


@fuzzed
def test_no_reason_tells_one(examples: int) -> None:
    around = st.text(st.sampled_from("@/?#:%&=; \\'\"<>é✓"), max_size=6)
    passwords = st.tuples(around, around).map(SECRET.join)
    fuzz(check_reason, passwords, st.sampled_from(["http://a:PW@h", "https://a:PW@h:1/x?y=1"]), examples=examples)
