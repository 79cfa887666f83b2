"""A headless Chromium, and pages to look at with it, served as users serve them.

Needs chromium and chromedriver (Debian: chromium, chromium-driver) and selenium from PyPI.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from kdtune.tracking.location import DEFAULT_HOST

WIDTH, HEIGHT = 1600, 1000
WAIT_S = 90
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def missing() -> str | None:
    """Why no browser can be started here, or None."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(absent)} not found" if absent else None


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((DEFAULT_HOST, 0))
        return int(probe.getsockname()[1])


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Ask until the condition holds.

    Raises:
        TimeoutError: it did not, within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s: {what}")
        time.sleep(0.05)


@contextmanager
def served(uri: str, port: int, log: IO[bytes] | None = None) -> Iterator[str]:
    """`python -m kdtune ui` on the database, for as long as the block runs; gives its address, writes into `log`."""
    command = [sys.executable, "-m", "kdtune", "ui", "--port", str(port)]
    with running(command, f"http://{DEFAULT_HOST}:{port}", "/health", log, MLFLOW_TRACKING_URI=uri) as address:
        yield address


@contextmanager
def running(
    command: list[str], address: str, path: str, log: IO[bytes] | None = None, **settings: str
) -> Iterator[str]:
    """The server that `command` starts, from when it answers at `address` + `path` until the block ends."""
    with tempfile.TemporaryFile() as own:
        out = own if log is None else log
        # A session of its own: the server's helpers are ended with it.
        server = subprocess.Popen(
            command, env={**os.environ, **settings}, stdout=out, stderr=out, start_new_session=True
        )

        def answers() -> bool:
            if server.poll() is not None:
                out.seek(0)
                raise RuntimeError(f"{command[0]} ended: {out.read().decode()[-2000:]}")
            try:
                with urllib.request.urlopen(f"{address}{path}", timeout=5) as answer:
                    return bool(answer.status == 200)
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                return False

        try:
            wait_until(answers, f"{address} answers")
            yield address
        finally:
            end(server)


def end(server: subprocess.Popen[bytes]) -> None:
    """End the server with everything it started, and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@contextmanager
def browser() -> Iterator[Chrome]:
    """A headless Chromium with a profile of its own."""
    with tempfile.TemporaryDirectory() as profile:
        options = ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={WIDTH},{HEIGHT}"):
            options.add_argument(flag)
        driver = Chrome(options=options, service=ChromeService(shutil.which("chromedriver")))
        try:
            # The window's size is the outer one; the picture is the page's.
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False},
            )
            yield driver
        finally:
            driver.quit()


def page_text(driver: Chrome) -> str:
    """What a person can read on the page."""
    return str(driver.execute_script("return document.body.innerText"))
