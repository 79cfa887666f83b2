"""Check that every machine of a cluster can train: all of them before a sweep, and each again in its own workers.

A machine can train if it sees the driver's store and the prepared frames under the same paths, may write there, cannot
get a lock there that the driver holds, and runs the driver's versions of kdtune, torch and numpy.
"""

from __future__ import annotations

import os
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import ray
from filelock import Timeout
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kdtune import __version__
from kdtune.clips.machine import processor
from kdtune.config.key import TRAINER_SEMANTICS
from kdtune.errors import Problem, StoreError
from kdtune.store import StoreFiles
from kdtune.store.files import read_json
from kdtune.train.prepared import Prepared

#: Seconds for all nodes to answer; the first task on a node starts a process there.
ANSWER_S = 120.0
#: Seconds for a node to reach a store behind a URL.
REACH_S = 20.0


@dataclass(frozen=True)
class Needs:
    """What every node must share with the driver. Small and picklable: workers get a copy."""

    store: StoreFiles
    store_id: str
    folders: tuple[str, ...]
    """The prepared ClipStores."""
    versions: dict[str, str]
    held_lock: str | None = None
    """Name of a lock that the driver holds during the checks."""

    @classmethod
    def of(cls, prepared: Prepared) -> Needs:
        """Return the needs of a sweep with prepared data sets. Call this in the driver."""
        folders = tuple(dict.fromkeys(prepared.folders.values()))
        return cls(prepared.store, prepared.store.claim(), folders, versions())

    @contextmanager
    def locked(self) -> Iterator[Needs]:
        """Within the context, hold a lock that no machine may get. A store behind a URL needs none."""
        if self.store.mirror is not None:
            yield self
            return
        name = f"probe-{uuid.uuid4().hex}"
        lock = self.store.lock_here(name)
        try:
            with lock:
                yield replace(self, held_lock=name)
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)

    def report(self) -> tuple[list[Problem], str]:
        """Return what this machine lacks, and the name of its processor."""
        return self.problems(), processor()

    def problems(self) -> list[Problem]:
        """Return what this machine lacks."""
        here = f"node {ray.util.get_node_ip_address()} ({platform.node()})"
        found = [Problem(here, *words) for words in self._store_problems()]
        for name, version in versions().items():
            wanted = self.versions.get(name)
            if version != wanted:
                found.append(Problem(here, f"has {name} {version}, the driver has {wanted}", "the same versions"))
        return found

    def _store_problems(self) -> list[tuple[str, str]]:
        root = self.store.root
        everywhere = "a path under which every machine sees the same folder"
        if self.store.mirror is not None:  # behind a URL, frames are fetched when they are needed
            try:
                with self.store.mirror.remote.patience(REACH_S):
                    seen = self.store.claim()
            except StoreError as error:
                return [(str(error).strip(), "a URL that every machine can read and write")]
            other = f"sees another store behind {self.store.mirror.remote.url}"
            return [] if seen == self.store_id else [(other, "one URL for all")]
        try:
            record = read_json(root / "store.json")
        except StoreError as error:
            return [(f"cannot read the store {root}: {str(error).strip()}", everywhere)]
        if record is None:
            return [(f"does not see the store {root}", everywhere)]
        if record.get("id") != self.store_id:
            return [(f"sees another store under {root}", everywhere)]
        if not os.access(root, os.W_OK):
            return [(f"may not write into the store {root}", "a user who may, on every machine")]
        if (told := self._lock_problem()) is not None:
            return [(told, "a mount whose locks all machines share (without local_lock or nolock), or --store URL")]
        unseen = (folder for folder in self.folders if not (Path(folder) / "store.json").exists())
        return [(f"does not see the frames in {folder}", everywhere) for folder in unseen]

    def _lock_problem(self) -> str | None:
        """Return why machines do not share locks, or None. Two machines with the same lock would train one trial in the
        same files."""
        if self.held_lock is None:
            return None
        try:
            with self.store.lock_here(self.held_lock).acquire(timeout=0):
                return f"gets a lock in {self.store.root} that the driver holds: locks there hold on one machine alone"
        except Timeout:
            return None
        except (OSError, NotImplementedError) as error:
            return f"cannot lock files in {self.store.root}: {error}"


def versions() -> dict[str, str]:
    """Return the versions that trials are computed with, without build suffixes (+cpu, +cu130), which may differ."""
    found = {"kdtune": __version__, "trainer semantics": str(TRAINER_SEMANTICS)}
    for name in ("torch", "numpy"):
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            found[name] = "(none)"
    return found


def check_nodes(needs: Needs) -> tuple[list[Problem], list[str]]:
    """Return what nodes with a CPU lack to train, and the names of their processors.

    Ray must be connected to their cluster.
    """
    look = ray.remote(num_cpus=0, max_retries=0)(Needs.report)
    deadline = time.monotonic() + ANSWER_S
    asked = {}
    for node in alive_nodes():
        if node["Resources"].get("CPU", 0) > 0:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[node["NodeID"]] = node, look.options(scheduling_strategy=there).remote(needs)
    problems: list[Problem] = []
    processors: list[str] = []
    for node_id, (node, answer) in asked.items():
        try:
            lacking, name = ray.get(answer, timeout=max(0.0, deadline - time.monotonic()))
            problems += lacking
            processors.append(name)
        except RayError as error:
            if all(other["NodeID"] != node_id for other in alive_nodes()):
                continue  # it has left the cluster and gets no trial
            last = str(error).strip().splitlines()[-1]
            late = f"did not answer within {ANSWER_S:.0f} s"
            what = late if isinstance(error, GetTimeoutError) else f"cannot run kdtune: {last}"
            where = f"node {node['NodeManagerAddress']} ({node['NodeManagerHostname']})"
            problems.append(Problem(where, what, "kdtune installed as on the driver's machine"))
    return problems, processors


def alive_nodes() -> list[dict[str, Any]]:
    """Return Ray's records of the cluster's nodes that are alive; Ray must be connected."""
    return [node for node in ray.nodes() if node["Alive"]]
