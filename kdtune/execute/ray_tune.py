"""The backend that trains through Ray Tune, on this machine's own Ray or on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from kdtune.config.search import ResourceConfig
from kdtune.errors import Problem, ResourceError
from kdtune.execute.backend import Stuck
from kdtune.execute.group_queue import GroupQueue
from kdtune.sweep.prepare import check_resources, this_machine
from kdtune.sweep.stopping import Cancel


@dataclass(frozen=True)
class RayTune:
    """Trains as many groups at once as the resources allow. Imports Ray only if there is something to train."""

    address: str | None = None

    def problems(self, resources: ResourceConfig) -> list[Problem]:
        found = [] if self.address else check_resources(resources, [this_machine(resources)])
        if find_spec("ray") is None:
            found.append(Problem("backend", "Ray is not installed here", "--backend inprocess, or pip install ray"))
        return found

    def run(self, queue: GroupQueue, cancel: Cancel, say: Callable[[str], object], stuck: Stuck) -> None:
        from kdtune.execute.cluster.ray_private import UnknownRay
        from kdtune.scoped import kept_process

        with kept_process("RAY_CLIENT_MODE", "KMP_DUPLICATE_LIB_OK"):
            from kdtune.execute.tune_run import run_in_tune

        try:
            run_in_tune(queue, self.address, cancel, say, stuck)
        except UnknownRay as error:
            allowed = "the version in constraints.txt, or --backend inprocess"
            raise ResourceError([Problem("Ray", str(error), allowed)]) from error
