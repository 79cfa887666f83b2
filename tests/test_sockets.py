"""What `doctor` reports of listening sockets, the token and the folder for Ray's sockets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kdtune.doctor import sockets
from kdtune.doctor.listening import listening
from kdtune.doctor.sockets import ray_folder, socket_finding, token
from kdtune.execute.cluster.folder import FITS

#: A process under another name that listens until its input closes.
LISTENER = """
import ctypes, socket, sys
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
with socket.socket(socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET) as door:
    door.bind((sys.argv[2], 0))
    door.listen()
    print(flush=True)
    sys.stdin.read()
"""


@contextmanager
def listener(name: str, host: str, *arguments: str, **environment: str) -> Iterator[int]:
    """Start a process of that name which listens on `host`. Return its id."""
    bare = {key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")}
    command = [sys.executable, "-c", LISTENER, name, host, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=bare | environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process.pid
        process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="a process is given another name as Linux does")
@pytest.mark.parametrize(
    ("host", "mode", "state", "words"),
    [
        ("127.0.0.1", "token", "ok", "only from this machine, asks for a token"),
        ("::ffff:127.0.0.1", "token", "ok", "only from this machine, asks for a token"),
        ("127.0.0.1", "disabled", "note", "only from this machine, asks for no token"),
        ("0.0.0.0", "token", "note", "from every machine that reaches this one, asks for a token"),
        ("0.0.0.0", "disabled", "problem", "from every machine that reaches this one, asks for no token"),
        ("::", None, "problem", "from every machine that reaches this one, asks for no token"),
    ],
)
def test_a_socket_of_ray_is_judged_by_its_address_and_its_token(
    host: str, mode: str | None, state: str, words: str
) -> None:
    environment = {} if mode is None else {"RAY_AUTH_MODE": mode}
    with listener("raylet", host, **environment) as pid:
        found = [socket_finding(listener) for listener in listening() if listener.pid == pid]
    assert [finding.state for finding in found] == [state]
    assert found[0].text.endswith(f"Ray raylet (process {pid}): {words}")


@pytest.mark.skipif(sys.platform != "linux", reason="a process is given another name as Linux does")
@pytest.mark.parametrize(
    ("host", "app", "state"),
    [
        ("127.0.0.1", "mlflow.server.fastapi_app:app", "ok"),
        ("0.0.0.0", "mlflow.server.fastapi_app:app", "problem"),
        ("0.0.0.0", "mlflow.server.auth:create_app", "note"),
    ],
)
def test_a_socket_of_mlflow_is_judged_by_its_address_and_its_login(host: str, app: str, state: str) -> None:
    with listener("python", host, app) as pid:
        found = [socket_finding(listener) for listener in listening() if listener.pid == pid]
    assert [finding.state for finding in found] == [state]
    assert "MLflow python" in found[0].text


def test_other_programs_sockets_are_none_of_ours() -> None:
    with listener("python", "127.0.0.1") as pid:
        assert pid not in {listener.pid for listener in listening()}


def test_nothing_that_listens_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "listening", list)
    assert [str(finding).split()[:2] for finding in sockets.socket_findings()][-1] == ["ok", "listens"]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize(("home", "file", "states"), [(0o755, 0o644, ["note"]), (0o755, 0o600, []), (0o700, 0o644, [])])
def test_a_token_that_others_can_read_is_noticed(
    home: int, file: int, states: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    found = tmp_path / "home" / ".ray" / "auth_token"
    found.parent.mkdir(parents=True)
    found.write_text("f" * 64)
    found.chmod(file)
    found.parent.chmod(0o755)
    found.parent.parent.chmod(home)
    assert [finding.state for finding in token(found)] == states


def test_a_mode_that_turns_tokens_off_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert [finding.state for finding in token(tmp_path / "none")] == ["note"]


def test_a_folder_that_rays_sockets_do_not_fit_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ray_folder().state == "ok"
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("x" * 105)))
    finding = ray_folder()
    assert finding.state == "problem"
    assert f"of at most {FITS} characters" in finding.text
