"""The processes that hold this machine's own Ray. `local.py` starts them with Ray's folder as the only argument.

Ray starts in its own process, so that a start that hangs, aborts or fails affects nothing else. Another process
supervises it, because Ray holds Python's lock while it waits. The supervisor prints one line for the driver: Ray's
address or an error. It ends everything when its input closes, which also happens when the driver is killed. No module
of kdtune is imported, because this process may not find any.
"""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil

#: prctl options: adopt orphaned descendants; be killed when the parent dies.
PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG = 36, 1
#: Ray's indispensable processes, and the seconds between two checks of them.
VITAL, LOOK_S = ("gcs_server", "raylet"), 0.2
#: Rounds of killing, of one second each. Only processes blocked in the kernel need more.
ROUNDS = 20


def supervise(folder: str) -> None:
    """Hold Ray in `folder` until the input closes, then end all descendants of this process."""
    driver = os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, lambda *_: None)  # the driver decides; children inherit SIG_IGN, but no function
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    command = [sys.executable, "-P", __file__, folder, "start"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as starter:
        answer = _answer(starter)
        with suppress(BrokenPipeError):
            os.write(1, answer)
        while os.read(0, 1):
            pass
        _end_descendants()
    if os.getppid() != driver:  # it was killed and cannot clean up
        shutil.rmtree(folder, ignore_errors=True)


def _answer(starter: subprocess.Popen[bytes]) -> bytes:
    """Return the line that the starter prints, or one that says why it cannot; empty if the driver has gone."""
    assert starter.stdout is not None
    while True:
        ready, _, _ = select.select([0, starter.stdout.fileno()], [], [], LOOK_S)
        if 0 in ready:
            return b""
        if ready:
            return starter.stdout.readline() or _line(error=f"its process ended with {starter.wait()}")
        try:
            vital = [child for child in psutil.Process(starter.pid).children() if child.name() in VITAL]
            dead = [child.name() for child in vital if child.status() == psutil.STATUS_ZOMBIE]
        except psutil.Error:  # the process has just ended
            continue
        except OSError as error:  # no file descriptor left to read /proc
            return _line(error=str(error))
        if dead:
            return _line(error=f"{' and '.join(dead)} died")


def _end_descendants() -> None:
    for _ in range(ROUNDS):
        children = psutil.Process().children(recursive=True)
        if not children:
            return
        for child in children:
            with suppress(psutil.Error):
                child.kill()
        psutil.wait_procs(children, timeout=1)


def hold(folder: str) -> None:
    """Start Ray in `folder`, print its address or an error, and sleep: Ray's processes end with this one."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    answer = os.dup(1)
    os.dup2(2, 1)  # all other output goes to the log
    _raise_limit()
    try:
        private = runpy.run_path(os.path.join(os.path.dirname(__file__), "ray_private.py"))
        line = _line(address=private["start_head"](folder))
    except Exception as error:
        line = _line(error=f"{type(error).__name__}: {error}")
    os.write(answer, line)
    while True:
        time.sleep(3600)  # until killed


def _line(**words: str) -> bytes:
    return json.dumps(words).encode() + b"\n"


def _raise_limit() -> None:
    """Allow as many open files as the user may have, as `ray.init` does."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    hold(sys.argv[1]) if sys.argv[2:] == ["start"] else supervise(sys.argv[1])
