"""Helper processes: what they inherit from the process that starts them, and when they end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
from helpers import ROOT
from servers import wait_until

#: A user's script without an `if __name__ == "__main__"` guard.
UNGUARDED = """
import os, signal, sys, time
from concurrent.futures import ProcessPoolExecutor
from kdtune.processes import end_with_parent, fork_server, isolated_start

print("the script runs", flush=True)
pool = ProcessPoolExecutor(1, mp_context=fork_server("kdtune.processes"), initializer=end_with_parent)
with isolated_start():
    helper = pool.submit(os.getpid).result()
    blocked = pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result()
print(signal.SIGINT in blocked, signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)
print(__file__, __spec__, helper, flush=True)
pool.submit(time.sleep, 600)
time.sleep(600)
"""


def test_helpers_run_no_script_hear_no_ctrl_c_and_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    process = subprocess.Popen([sys.executable, script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(3)]
    finally:
        process.send_signal(signal.SIGKILL)
    assert lines[:2] == ["the script runs", "True False"]
    file, spec, helper = lines[2].split()
    assert (file, spec) == (str(script), "None")
    assert process.communicate()[0] == "", "no helper prints, and none holds the pipe: all have ended"
    wait_until(lambda: not psutil.pid_exists(int(helper)), "the helper ends")
