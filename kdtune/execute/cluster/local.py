"""Start this machine's own Ray for one sweep. It asks for a token, binds to loopback and ends with the sweep.

Ray runs in its own process (`head.py`); Ray is not imported here. A start that fails is tried once more.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from kdtune.errors import Problem, ResourceError
from kdtune.execute.cluster import head
from kdtune.execute.cluster.reason import LOG, reason

#: The name in messages of the Ray that kdtune starts.
HERE = "Ray on this machine"
#: Advice after a failure that leaves the store intact.
RESUME = "run the same command again to resume the sweep"
#: Ray's timeouts and retries with their defaults.
PATIENCE = {
    "RAY_raylet_start_wait_time_s": 30,
    "RAY_gcs_server_port_wait_time_s": 30,
    "RAY_NUM_REDIS_GET_RETRIES": 20,
    "RAY_agent_register_timeout_ms": 30_000,
    "RAY_worker_register_timeout_seconds": 60,
}
#: Factor by which the second attempt waits longer.
MORE = 4
#: Seconds after which an attempt counts as hanging.
HANGS_S = 120
#: Seconds that Ray's processes have to end.
ENDS_S = 30
#: Variables that would make Ray use another cluster than the one started here.
_FOREIGN = ("RAY_ADDRESS", "RAY_REDIS_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


class _NotStarted(Exception):
    """An attempt to start Ray failed. The text says why in one line."""


@contextmanager
def local_ray(folder: Path, say: Callable[[str], object]) -> Iterator[tuple[str, dict[str, str]]]:
    """Run Ray in `folder` within the context; yield its address and the variables that a process needs to connect.

    Raises ResourceError if two attempts fail. Ray ends with the context, even if this process is killed.
    """
    access = _access(folder, say)
    say("starting Ray …")
    process, address = _started(folder, access, say)
    try:
        yield address, access
    finally:
        _end(process)


def _access(folder: Path, say: Callable[[str], object]) -> dict[str, str]:
    """Make a token for this Ray alone; return the variables that name it. The user's RAY_AUTH_MODE wins."""
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        say(f"RAY_AUTH_MODE={mode}: any user of this machine can run code as you while Ray runs")
        return {"RAY_AUTH_MODE": mode}
    file = folder / "token"
    with open(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as token:
        token.write(secrets.token_hex(32))
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}


def _started(
    folder: Path, access: Mapping[str, str], say: Callable[[str], object]
) -> tuple[subprocess.Popen[bytes], str]:
    reasons: list[str] = []
    for more in (1, MORE):
        try:
            return _attempt(folder, access, more)
        except _NotStarted as failed:
            if not reasons:
                say(f"Ray did not start: {failed}; trying once more, with longer timeouts")
            reasons.append(str(failed))
    what = f"two attempts to start it failed: {'; then '.join(dict.fromkeys(reasons))}"
    raise ResourceError([Problem(HERE, f"{what}. Nothing is lost: {RESUME}")])


def _attempt(folder: Path, access: Mapping[str, str], more: int) -> tuple[subprocess.Popen[bytes], str]:
    """Start the process that holds Ray, with timeouts `more` times as long. Raises _NotStarted."""
    environment = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    environment |= {**access, **_patience(more)}
    try:
        with (folder / LOG).open("wb") as written:
            process = subprocess.Popen(
                # -P: do not import from the folder of head.py.
                [sys.executable, "-P", head.__file__, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=written,
                env=environment,
                start_new_session=True,  # Ctrl-C must reach only the driver
            )
    except OSError as error:
        raise _NotStarted(f"no process can be started: {error.strerror or error}") from None
    try:
        answer = _answer(process, HANGS_S * more)
        if "address" in answer:
            return process, answer["address"]
        raise _NotStarted(reason(answer["error"], folder))
    except BaseException:
        _end(process)
        raise


def _patience(more: int) -> dict[str, str]:
    """Return Ray's timeouts: the user's own, or for the second attempt at least `more` times the default."""
    if more == 1:
        return {}
    return {name: str(more * max(usual, _number(os.environ.get(name)))) for name, usual in PATIENCE.items()}


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


def _answer(process: subprocess.Popen[bytes], seconds: float) -> dict[str, str]:
    """Return the line that the process prints. Signals interrupt the wait."""
    assert process.stdout is not None
    line, deadline = b"", time.monotonic() + seconds
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return {"error": f"no answer within {seconds:.0f} s"}
        piece = os.read(process.stdout.fileno(), 65536)
        if not piece:
            return {"error": f"its process ended with {process.wait()}"}
        line += piece
    return dict(json.loads(line))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Make the process end Ray and itself, and wait for it."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.close()
    with suppress(OSError):
        process.stdin.close()
    try:
        process.wait(ENDS_S)
    except subprocess.TimeoutExpired:
        process.kill()  # the kernel then kills Ray's own processes, which depend on this one
        process.wait()
