"""A sweep over machines with their own addresses: network namespaces joined by a link, which is cut during a trial."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clusters import TOKEN, environment, in_the_midst, in_work, longer, ray_node, raylet_of, records, sweep, until

#: Addresses of the two machines.
HEAD, WORKER = "10.213.77.1", "10.213.77.2"
#: A cut-off node is given up after about three seconds instead of a minute.
IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "2",
}
#: Exit when the cluster has the given number of living nodes.
WAITS = """
import sys, time
from ray._raylet import GcsClient
from ray.core.generated.gcs_pb2 import GcsNodeInfo
client = GcsClient(address=sys.argv[1])
while True:
    nodes = client.get_all_node_info().values()
    if sum(node.state == GcsNodeInfo.ALIVE for node in nodes) == int(sys.argv[2]):
        break
    time.sleep(0.1)
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@dataclass(frozen=True)
class Link:
    """Two network namespaces and the link between them."""

    name: str

    @property
    def head(self) -> list[str]:
        """Return the prefix of a command that runs on the first machine."""
        return ["ip", "netns", "exec", f"{self.name}h"]

    @property
    def worker(self) -> list[str]:
        """Return the prefix of a command that runs on the second machine."""
        return ["ip", "netns", "exec", f"{self.name}w"]

    def set(self, state: str) -> None:
        ip("-n", f"{self.name}w", "link", "set", f"{self.name}w", state)


@pytest.fixture
def link() -> Iterator[Link]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and `ip`")
    link = Link(f"kd{os.getpid()}")
    ends = {f"{link.name}h": HEAD, f"{link.name}w": WORKER}
    tried = subprocess.run(["ip", "netns", "add", f"{link.name}h"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no network namespace can be made here: {tried.stderr.strip()}")
    try:
        ip("netns", "add", f"{link.name}w")
        ip("link", "add", f"{link.name}h", "type", "veth", "peer", "name", f"{link.name}w")
        for end, address in ends.items():
            ip("link", "set", end, "netns", end)
            ip("-n", end, "address", "add", f"{address}/24", "dev", end)
            ip("-n", end, "link", "set", end, "up")
            ip("-n", end, "link", "set", "lo", "up")
        yield link
    finally:
        for end in ends:
            subprocess.run(["ip", "netns", "delete", end], check=False)


@pytest.mark.slow
def test_a_node_that_is_cut_off_in_mid_trial_and_comes_back_changes_no_bit(
    link: Link, sweep_form: dict[str, Any], tmp_path: Path
) -> None:
    file = longer(sweep_form, tmp_path)
    (tmp_path / "alone").mkdir()
    reference = sweep(file, tmp_path / "alone", environment(tmp_path / "alone"))
    env = environment(tmp_path, **TOKEN, **IMPATIENT)
    with ExitStack() as stack:
        stack.callback(reference.end)
        assert reference.ended() == 0, reference.text
        short = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kd", ignore_cleanup_errors=True)))
        start = ["--head", f"--node-ip-address={HEAD}", "--port=6379", "--num-cpus=1", f"--temp-dir={short}"]
        stack.enter_context(ray_node(*start, "--include-dashboard=false", folder=short, env=env, within=link.head))
        join = [f"--address={HEAD}:6379", f"--node-ip-address={WORKER}", "--num-cpus=1"]
        node = stack.enter_context(ray_node(*join, folder=short, env=env, within=link.worker))
        run = sweep(file, tmp_path, env, "--address", f"{HEAD}:6379", within=link.head)
        stack.callback(run.end)

        def nodes(count: int) -> None:
            command = [*link.head, sys.executable, "-c", WAITS, f"{HEAD}:6379", str(count)]
            subprocess.run(command, env=env, check=True, timeout=120)

        until(lambda: in_the_midst(raylet_of(node), tmp_path), "the other machine is in mid-trial", run)
        link.set("down")
        nodes(1)
        link.set("up")
        until(lambda: node.process.poll() is not None, "the node has heard that it was given up", run)
        again = stack.enter_context(ray_node(*join, folder=short, env=env, within=link.worker))
        until(lambda: in_work(raylet_of(again)), "the node that came back trains", run)
        assert run.ended() == 0, run.text
        assert "12 trials trained, 0 found" in run.text
    assert records(tmp_path) == records(tmp_path / "alone")
