"""The Ray that kdtune starts on this machine: it requires a token, is bound to loopback, starts late or says why."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import ray
from helpers import ROOT, run_python

from kdtune.errors import ResourceError
from kdtune.execute.cluster import head, local
from kdtune.execute.cluster.connect import connect
from kdtune.execute.cluster.local import local_ray
from kdtune.execute.cluster.ray_private import UnknownRay
from kdtune.execute.cluster.reason import reason

# ---- a head that is none: what a start can come to -------------------------------------------------------------------


@pytest.fixture
def heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace head.py by `first.py`, then `second.py`, one per attempt. The file `ran` records each one's patience."""
    chosen = tmp_path / "head.py"
    chosen.write_text(
        "import os, sys, pathlib\n"
        "ran = pathlib.Path(sys.argv[1]) / 'ran'\n"
        "before = ran.read_text() if ran.exists() else ''\n"
        "ran.write_text(before + os.environ.get('RAY_raylet_start_wait_time_s', 'usual') + ' ')\n"
        f"names = {str(tmp_path)!r}, 'first.py' if not before else 'second.py'\n"
        "exec(pathlib.Path(*names).read_text())\n"
    )
    monkeypatch.setattr(head, "__file__", str(chosen))


FAILS = """print('{"error": "RuntimeError: no room"}', flush=True)"""
WORKS = """print('{"address": "127.0.0.1:1"}', flush=True); sys.stdin.read()"""
DIES = "os.abort()"
HANGS = "sys.stdin.read()"


def started(tmp_path: Path, first: str, second: str = "") -> tuple[str, list[str], str]:
    """Return the address or the refusal, the messages, and the patience of each attempt."""
    (tmp_path / "first.py").write_text(first)
    (tmp_path / "second.py").write_text(second)
    folder = tmp_path / "folder"
    folder.mkdir()
    said: list[str] = []
    try:
        with local_ray(folder, said.append) as (found, _):
            pass
    except ResourceError as refusal:
        found = str(refusal)
    ran = folder / "ran"
    return found, said, ran.read_text() if ran.exists() else ""


@pytest.mark.usefixtures("heads")
def test_a_start_that_fails_once_is_tried_again_with_more_patience(tmp_path: Path) -> None:
    found, said, patience = started(tmp_path, FAILS, WORKS)
    assert found == "127.0.0.1:1"
    assert said == [
        "starting Ray …",
        "Ray did not start: RuntimeError: no room; trying once more, with longer timeouts",
    ]
    assert patience.split() == ["usual", "120"]


@pytest.mark.usefixtures("heads")
@pytest.mark.parametrize(
    ("ends", "why"),
    [(FAILS, "RuntimeError: no room"), (DIES, "its process ended with -6"), (HANGS, "no answer within")],
)
def test_two_failures_are_one_message(ends: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "HANGS_S", 0.2 if ends == HANGS else 60)
    found, said, _ = started(tmp_path, ends, ends)
    assert found.startswith(f"  Ray on this machine: two attempts to start it failed: {why}")
    assert found.endswith("Nothing is lost: run the same command again to resume the sweep")
    assert found.count("\n") == 0
    assert len(said) == 2


@pytest.mark.usefixtures("heads")
def test_what_the_user_set_is_the_first_patience_and_at_least_that_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "100")
    assert started(tmp_path, FAILS, WORKS)[2].split() == ["100", "400"]


def test_no_process_at_all_is_the_same_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    words = "no process can be started: No such file or directory"
    with pytest.raises(ResourceError, match=words), local_ray(tmp_path, lambda _: None):
        pass


# ---- the token -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("heads")
def test_the_token_is_a_private_file_and_in_no_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 64)
    show = f"open({str(tmp_path / 'seen')!r}, 'w').write(repr(dict(os.environ)))\n"
    started(tmp_path, show + WORKS)
    file = tmp_path / "folder" / "token"
    assert file.stat().st_mode & 0o777 == 0o600
    token = file.read_text()
    assert len(token) == 64
    seen = (tmp_path / "seen").read_text()
    assert token not in seen
    assert "f" * 64 not in seen, "the user's token is for other clusters"
    assert f"'RAY_AUTH_MODE': 'token', 'RAY_AUTH_TOKEN_PATH': {str(file)!r}" in seen


@pytest.mark.usefixtures("heads")
def test_the_users_mode_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    said = started(tmp_path, WORKS)[1]
    assert not (tmp_path / "folder" / "token").exists()
    assert said[0] == "RAY_AUTH_MODE=disabled: any user of this machine can run code as you while Ray runs"


# ---- why -------------------------------------------------------------------------------------------------------------

LOG = """\
[2026-11-28 08:04:30,457 I 20165 20165] (gcs_server) gcs_server_main.cc:98: Ray cluster metadata
[2026-11-28 08:04:30,473 E 20165 20175] (gcs_server) logging.cc:118: Unhandled exception: N5boostE. what(): epoll: \
Too many open files [system:24] /usr/lib/gcs_server(+0x14c484c) [0x564231e4284c]
[2026-11-28 08:04:30,475 E 20165 20175] (gcs_server) logging.cc:97: *** SIGABRT received at time=1 ***
[2026-11-28 08:04:30,476 E 20165 20175] (gcs_server) logging.cc:97: PC: @ 0x7fedf88a8eec (unknown) (unknown)
[2026-11-28 08:04:30,476 E 20165 20175] (gcs_server) logging.cc:97:     @ 0x7fe5da0661d0 (unknown) (unknown)
"""


def test_the_reason_is_what_ray_raised_and_its_last_error_without_stacks(tmp_path: Path) -> None:
    logs = tmp_path / "r" / "s1" / "logs"
    logs.mkdir(parents=True)
    (logs / "gcs_server.err").write_text(LOG)
    raised = (
        "Exception: The current node timed out during startup. This could happen because some of the raylet failed to "
        "startup or the GCS has become overloaded."
    )
    assert reason(raised, tmp_path) == (
        "The current node timed out during startup; Ray's log: epoll: Too many open files [system:24]"
    )


def test_a_ray_that_has_moved_its_private_parts_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setitem(sys.modules, "ray._private.authentication.authentication_token_setup", None)
        with pytest.raises(UnknownRay, match=rf"^Ray {ray.__version__} is not supported: .*token_setup"):
            connect(address)


# ---- a real one ------------------------------------------------------------------------------------------------------

#: Start Ray in vain, then really; start a worker; report what listens, and whom Ray refuses.
REAL = """
import json, os, subprocess, sys
import psutil, ray
from kdtune.doctor.listening import listening
from kdtune.execute.cluster.connect import connected
from kdtune.commands.interrupts import Interrupts

said = []
with Interrupts() as interrupts, connected(None, interrupts, said.append) as folder:
    there = psutil.Process().children(recursive=True)
    worker = ray.remote(lambda: os.getpid())
    pid = ray.get(worker.remote())
    address = ray.get_runtime_context().gcs_address
    doors = listening()
    ask = "from ray._raylet import GcsClient; GcsClient(address=%r).internal_kv_get(b'x', None)" % address
    without = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    without["HOME"] = "/nowhere"
    stranger = subprocess.run([sys.executable, "-c", ask], env=without, capture_output=True, text=True)
    mine = {os.getpid(), pid, *(process.pid for process in there)}
print(json.dumps({
    "said": said, "gone": not folder.exists(), "left": [p.pid for p in there if p.is_running()],
    "doors": [[d.address, d.local, d.guarded] for d in doors if d.pid in mine],
    "owners": len({d.pid for d in doors if d.pid in mine}),
    "stranger": [stranger.returncode, stranger.stderr],
    "mode": os.environ.get("RAY_AUTH_MODE"),
}))
"""


def test_a_real_start_is_tried_twice_and_opens_no_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_gcs_server_port_wait_time_s", "0")  # no time at all for the first attempt
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    seen = json.loads(run_python(REAL).stdout)
    assert len(seen["said"]) == 2
    assert seen["said"][1].startswith("Ray did not start: ")
    assert seen["owners"] >= 5
    assert all(door[1] and door[2] for door in seen["doors"]), seen["doors"]
    assert seen["stranger"][0] != 0
    assert "AuthenticationError" in seen["stranger"][1]
    assert seen["gone"]
    assert seen["left"] == []
    assert seen["mode"] is None, "the user's settings are as they were"


# ---- signals ---------------------------------------------------------------------------------------------------------

INTERRUPTED = """
import sys
from kdtune.execute.cluster.connect import connected
from kdtune.commands.interrupts import Interrupts

try:
    with Interrupts() as interrupts, connected(None, interrupts, print):
        print("connected", flush=True)
        STAY
except KeyboardInterrupt:
    sys.exit(130)
"""


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def named(process: psutil.Process, name: str) -> bool:
    try:
        return process.name() == name
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("number", "when"),
    [
        pytest.param(signal.SIGTERM, "gcs_server", id="SIGTERM-gcs_server"),
        *(
            pytest.param(number, when, id=f"{number.name}-{when}", marks=pytest.mark.slow)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
            for when in ("python", "gcs_server", "raylet", "ray::RuntimeEnvAgent", "connected", "ending")
            if (number, when) != (signal.SIGTERM, "gcs_server")
        ),
    ],
)
def test_a_signal_at_any_moment_leaves_nothing(number: signal.Signals, when: str) -> None:
    stay = "import time; time.sleep(600)" if when == "connected" else "pass"
    code = INTERRUPTED.replace("STAY", stay)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    seen: set[psutil.Process] = set()
    if when in ("connected", "ending"):
        assert process.stdout.readline() == "connected\n"
        seen.update(descendants(process.pid))
    else:
        while not any(named(child, when) for child in seen):
            assert process.poll() is None, process.communicate()
            seen.update(descendants(process.pid))
    process.send_signal(number)
    while process.poll() is None:
        seen.update(descendants(process.pid))
    _, printed = process.communicate()
    assert "Traceback" not in printed
    expected = -signal.SIGKILL if number == signal.SIGKILL else 130
    assert process.returncode == expected or (when == "ending" and process.returncode == 0), printed
    folders = {argument for child in seen for argument in command_line(child) if "/kdtune-ray-" in argument}
    psutil.wait_procs(seen, timeout=60)
    assert [child for child in seen if child.is_running()] == []
    deadline = time.monotonic() + 10
    while any(Path(folder).exists() for folder in folders) and time.monotonic() < deadline:
        os.sched_yield()
    assert not any(Path(folder).exists() for folder in folders)


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
