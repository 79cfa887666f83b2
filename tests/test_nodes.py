"""A cluster's nodes: real raylets are killed, added, cut off or see no store; the results equal one machine's."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clusters import environment, in_the_midst, in_work, longer, ray_node, records, sweep, until
from helpers import ROOT
from servers import free_port

from kdtune.execute.cluster.nodes import Needs, versions
from kdtune.store import StoreFiles
from kdtune.store.files import write_json
from kdtune.train.prepared import Prepared
from kdtune.train.session import Session


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for Ray, whose sockets need a short path."""
    with tempfile.TemporaryDirectory(prefix="kd", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


# ---- what a node needs, on this one ----------------------------------------------------------------------------------


@pytest.fixture
def needs(prepared: Session, tmp_path: Path) -> Needs:
    """Return the environment of a sweep in a store with one prepared data set."""
    store = StoreFiles(tmp_path / "runs")
    (folder,) = set(prepared.folders.values())
    copy = shutil.copytree(folder, store.clips(Path(folder).name))
    return Needs.of(Prepared(store, {"a": str(copy), "b": str(copy)}))


def lacking(needs: Needs) -> list[str]:
    problems = [str(problem) for problem in needs.problems()]
    assert all(problem.startswith("node ") for problem in problems)
    return problems


def test_a_node_that_sees_all_lacks_nothing(needs: Needs) -> None:
    assert lacking(needs) == []


def test_a_node_without_the_store_is_named_and_gets_no_empty_one(needs: Needs) -> None:
    needs.store.root.rename(needs.store.root.with_name("elsewhere"))
    (problem,) = lacking(needs)
    assert f"does not see the store {needs.store.root}" in problem
    assert not needs.store.root.exists()


def test_another_store_under_the_same_path_is_not_taken_for_it(needs: Needs) -> None:
    write_json(needs.store.root / "store.json", {"version": 1, "id": "another"})
    (problem,) = lacking(needs)
    assert f"sees another store under {needs.store.root}" in problem
    (needs.store.root / "store.json").write_text("{")
    (problem,) = lacking(needs)
    assert "cannot read the store" in problem


def test_frames_that_a_node_does_not_see_are_named_once(needs: Needs) -> None:
    (folder,) = needs.folders
    shutil.rmtree(folder)
    (problem,) = lacking(needs)
    assert f"does not see the frames in {folder}" in problem


def test_every_version_that_is_another_is_named(needs: Needs) -> None:
    assert "+" not in versions()["torch"]
    other = {**needs.versions, "torch": "1.0.0", "kdtune": "0.0.0"}
    told = lacking(replace(needs, versions=other))
    assert len(told) == 2
    assert "the driver has 0.0.0" in told[0]
    assert f"has torch {versions()['torch']}, the driver has 1.0.0" in told[1]


def test_a_node_must_fail_to_get_a_lock_that_the_driver_holds(needs: Needs) -> None:
    with needs.locked() as asked:
        assert lacking(asked) == []
        lock = asked.store.root / "locks" / f"{asked.held_lock}.lock"
        assert lock.exists()
        # A node with its own locks sees no holder.
        lock.rename(lock.with_name("elsewhere"))
        (problem,) = lacking(asked)
        assert f"gets a lock in {needs.store.root} that the driver holds" in problem
        assert "without local_lock or nolock" in problem
        assert "--store URL" in problem
    assert lacking(replace(asked, held_lock=None)) == []


@pytest.mark.slow
def test_a_mount_that_shares_files_and_no_locks_is_refused(
    sweep_form: dict[str, Any], short: Path, tmp_path: Path
) -> None:
    """As with NFS and local_lock: the node sees the store, but has its own folder of locks."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and `unshare`")
    file, env = longer(sweep_form, tmp_path), environment(tmp_path, RAY_AUTH_MODE="disabled")
    locks = tmp_path / "runs" / "locks"
    locks.mkdir(parents=True)
    within = [
        "unshare",
        "--mount",
        "--propagation=private",
        "sh",
        "-c",
        f'mount -t tmpfs none {locks} && exec "$@"',
        "sh",
    ]
    address = f"127.0.0.1:{free_port()}"
    start = ["--head", "--node-ip-address=127.0.0.1", f"--port={address.split(':')[1]}", "--num-cpus=1"]
    with ExitStack() as stack:
        stack.enter_context(ray_node(*start, f"--temp-dir={short}", "--include-dashboard=false", folder=short, env=env))
        stack.enter_context(ray_node(f"--address={address}", "--num-cpus=1", folder=short, env=env, within=within))
        run = sweep(file, tmp_path, env, "--address", address)
        stack.callback(run.end)
        assert run.ended() == 2, run.text
    assert "1 problem" in run.text
    assert f"gets a lock in {tmp_path / 'runs'} that the driver holds" in run.text
    assert StoreFiles(tmp_path / "runs").trials() == []


# ---- several raylets -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_node_added_later_and_one_killed_in_mid_trial_change_no_bit(
    sweep_form: dict[str, Any], tmp_path: Path
) -> None:
    from ray.cluster_utils import Cluster

    file = longer(sweep_form, tmp_path)
    (tmp_path / "alone").mkdir()
    reference = sweep(file, tmp_path / "alone", environment(tmp_path / "alone"))
    env = environment(tmp_path, RAY_AUTH_MODE="disabled")
    with ExitStack() as stack:
        stack.callback(reference.end)
        assert reference.ended() == 0, reference.text
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in env.items():
            patch.setenv(name, value)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        stack.callback(cluster.shutdown)
        first = cluster.add_node(num_cpus=1).all_processes["raylet"][0].process
        # A node's death is not its trial's failure and uses none of its retries.
        run = sweep(file, tmp_path, env, "--address", cluster.address, "--set", "resources.retries=0")
        stack.callback(run.end)
        until(lambda: in_work(first.pid), "a node trains", run)
        added = cluster.add_node(num_cpus=1).all_processes["raylet"][0].process
        until(lambda: in_work(added.pid) and in_the_midst(first.pid, tmp_path), "both train, one in mid-trial", run)
        first.kill()
        first.wait()  # a zombie would seem alive to its workers
        assert run.ended() == 0, run.text
        assert "12 trials trained, 0 found" in run.text
    assert records(tmp_path) == records(tmp_path / "alone")


@pytest.mark.slow
def test_a_node_without_the_store_is_refused_and_gets_no_trial_when_it_joins_later(
    sweep_form: dict[str, Any], short: Path, tmp_path: Path
) -> None:
    """The node is in its own mount namespace, with an empty store and another version of kdtune."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and `unshare`")
    file = longer(sweep_form, tmp_path)
    env = environment(tmp_path, RAY_AUTH_MODE="disabled")
    (tmp_path / "runs").mkdir()
    other = tmp_path / "other.py"
    other.write_text('"""kdtune of another version."""\n\n__version__ = "0.0.1"\n')
    mounts = f"mount -t tmpfs none {tmp_path / 'runs'} && mount --bind {other} {ROOT / 'kdtune' / '__init__.py'}"
    within = ["unshare", "--mount", "--propagation=private", "sh", "-c", f'{mounts} && exec "$@"', "sh"]
    lacks = (f"does not see the store {tmp_path / 'runs'}", "has kdtune 0.0.1, the driver has")
    with ExitStack() as stack:
        port = free_port()
        address = f"127.0.0.1:{port}"
        start = ["--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=1", f"--temp-dir={short}"]
        stack.enter_context(ray_node(*start, "--include-dashboard=false", folder=short, env=env))
        join = [f"--address={address}", "--num-cpus=1"]
        with ray_node(*join, folder=short, env=env, within=within):
            run = sweep(file, tmp_path, env, "--address", address)
            stack.callback(run.end)
            assert run.ended() == 2, run.text
        assert "2 problems" in run.text
        assert all(words in run.text for words in lacks)
        assert "Traceback" not in run.text
        assert StoreFiles(tmp_path / "runs").trials() == [], "refused before a trial began"
        # The node is gone again, and comes back while a sweep runs that tolerates no failure.
        run = sweep(file, tmp_path, env, "--address", address, "--set", "resources.retries=0")
        stack.callback(run.end)
        until(lambda: "early" in run.text, "a trial runs", run)
        stack.enter_context(ray_node(*join, folder=short, env=env, within=within))
        assert run.ended() == 0, run.text
    notes = [line for line in run.text.splitlines() if line.startswith("note: node ")]
    assert all(any(words in note for note in notes) for words in lacks), run.text
    assert "12 trials trained, 0 found" in run.text
