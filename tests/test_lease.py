"""Locks between machines that see a store behind a URL, on a real S3 server."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import Timeout
from helpers import ROOT
from s3 import S3Server

from kdtune.store import StoreFiles
from kdtune.store import lease as module
from kdtune.store.remote import Remote


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make locks expire after a second and a half."""
    for name, value in {"BEAT_S": 0.2, "EXPIRY_S": 1.5, "POLL_S": 0.05}.items():
        monkeypatch.setattr(module, name, value)


def stores(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], StoreFiles]:
    """The same store as several machines see it, each with its own working copy."""

    def on(machine: str) -> StoreFiles:
        monkeypatch.setenv("KDTUNE_CACHE", str(folder / machine))
        return StoreFiles(url)

    return on


def elsewhere(url: str, cache: Path, code: str, lock: str = "thing") -> subprocess.Popen[str]:
    """Start another process that holds a lock, reports that, and then runs `code`."""
    code = f"""
import os, time
os.environ["KDTUNE_CACHE"] = {str(cache)!r}
from kdtune.store import lease
lease.BEAT_S, lease.EXPIRY_S = 0.2, 1.5
from kdtune.store import StoreFiles
store = StoreFiles({url!r})
with store.lock({lock!r}):
    print("held", flush=True)
    {code}
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, **pipes)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_only_one_machine_holds_a_lock_at_a_time(
    s3: str, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = stores(s3, tmp_path, monkeypatch)
    machines = [on(str(i)) for i in range(6)]
    within: list[int] = []
    most = 0
    own = threading.Lock()

    def work(store: StoreFiles) -> None:
        nonlocal most
        for _ in range(3):
            with store.lock("thing"):
                with own:
                    within.append(1)
                    most = max(most, len(within))
                assert store.mirror is not None
                counted = int(store.mirror.remote.read("count") or b"0")
                store.mirror.remote.write("count", str(counted + 1).encode())
                with own:
                    within.pop()

    with ThreadPoolExecutor(len(machines)) as pool:
        list(pool.map(work, machines))
    assert most == 1
    assert Remote(s3).read("count") == b"18", "each read what the one before had written"


def test_who_does_not_wait_is_told_that_another_machine_holds_it(
    s3: str, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = stores(s3, tmp_path, monkeypatch)
    first, second = on("first"), on("second")
    with first.lock("thing"):
        with pytest.raises(Timeout):
            second.lock("thing").acquire(blocking=False)
        with pytest.raises(Timeout):
            first.lock("thing").acquire(blocking=False)
    with second.lock("thing").acquire(blocking=False), pytest.raises(Timeout):
        first.lock("thing").acquire(blocking=False)


def test_the_lock_of_a_killed_process_is_free_at_once_here_and_soon_elsewhere(
    s3: str, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = stores(s3, tmp_path, monkeypatch)
    for machine, waits in (("here", False), ("elsewhere", True)):
        process = elsewhere(s3, tmp_path / "here", "time.sleep(600)")
        store = on(machine)
        with pytest.raises(Timeout):
            store.lock("thing").acquire(blocking=False)
        process.kill()
        process.wait()
        with store.lock("thing").acquire(blocking=waits):
            pass


def test_a_process_that_was_stopped_for_too_long_publishes_nothing_more(
    s3: str, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
    input()
    try:
        store.trial("key").write_result({})
    except Exception as error:
        print(error, flush=True)
"""
    process = elsewhere(s3, tmp_path / "first", code, "trial-key")
    process.send_signal(signal.SIGSTOP)
    with stores(s3, tmp_path, monkeypatch)("second").lock("trial-key"):
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate("\n", timeout=60)
    assert "another machine took trial-key over" in said
    assert Remote(s3).listing("trials/key") == {}


@pytest.mark.slow
def test_an_outage_frees_no_lock(
    s3: str, s3_server: S3Server, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A waiting machine cannot tell a dead holder from a dead network, so it starts counting again."""
    on = stores(s3, tmp_path, monkeypatch)
    first, second = on("first"), on("second")
    with ThreadPoolExecutor(1) as pool:
        with first.lock("thing"):
            got = pool.submit(second.lock("thing").acquire)
            assert second.mirror is not None
            while not second.mirror.remote.reached:
                assert not got.done()
            s3_server.stop()
            threading.Event().wait(2 * module.EXPIRY_S)
            s3_server.start()
            first.trial("key").write_result({})
            assert not got.done()
        got.result(timeout=60).close()
    assert Remote(s3).read("trials/key/result.json") is not None
