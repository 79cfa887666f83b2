"""Start servers on this machine for tests: find free ports, wait until they answer, and stop them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

from kdtune.tracking.location import DEFAULT_HOST

WAIT_S = 90


def free_ports(count: int) -> list[int]:
    """Return different free ports of the loopback interface."""
    with ExitStack() as open_:
        probes = [open_.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((DEFAULT_HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def free_port() -> int:
    return free_ports(1)[0]


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Poll until the condition holds.

    Raises:
        TimeoutError: it did not hold within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s: {what}")
        time.sleep(0.05)


def answers(url: str, server: subprocess.Popen[bytes] | None = None) -> bool:
    """Return whether `url` answers with a page.

    Raises:
        RuntimeError: the process that should answer has ended.
    """
    if server is not None and server.poll() is not None:
        raise RuntimeError(f"{server.args} ended with {server.returncode}")
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@contextmanager
def served(uri: str, port: int, log: IO[bytes] | None = None) -> Iterator[str]:
    """Run `python -m kdtune ui` on the database during the block. Yield its address; write its output to `log`."""
    command = [sys.executable, "-m", "kdtune", "ui", "--port", str(port)]
    with running(command, f"http://{DEFAULT_HOST}:{port}", "/health", log, MLFLOW_TRACKING_URI=uri) as address:
        yield address


@contextmanager
def running(
    command: list[str], address: str, path: str, log: IO[bytes] | None = None, **settings: str
) -> Iterator[str]:
    """Run the server `command` until the block ends. Enter the block when it answers at `address` + `path`.

    Raises:
        RuntimeError: it ended before it answered; the message holds the end of its output.
    """
    with tempfile.TemporaryFile() as own:
        out = own if log is None else log
        # Its own session, so that the server's helpers are ended with it.
        server = subprocess.Popen(
            command, env={**os.environ, **settings}, stdout=out, stderr=out, start_new_session=True
        )

        def up() -> bool:
            if server.poll() is not None:
                out.seek(0)
                raise RuntimeError(f"{command[0]} ended: {out.read().decode()[-2000:]}")
            return answers(f"{address}{path}")

        try:
            wait_until(up, f"{address} answers")
            yield address
        finally:
            end(server)


def end(server: subprocess.Popen[bytes]) -> None:
    """End the server and everything it started, and wait until they are gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
