"""The contract of the backends, which train a sweep's groups. tests/test_backends.py checks it for each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kdtune.config.search import ResourceConfig
from kdtune.errors import Problem, UserError
from kdtune.execute.group_queue import GroupQueue
from kdtune.sweep.stopping import Cancel

NAMES = ("ray", "inprocess")


class Backend(Protocol):
    """Trains groups. It decides nothing: candidates, prunings and bits are the same on every backend."""

    @property
    def address(self) -> str | None:
        """The cluster's address; None if this machine trains."""

    def problems(self, resources: ResourceConfig) -> list[Problem]:
        """Return what a trial lacks, as far as it is known before anything is prepared."""

    def run(self, queue: GroupQueue, cancel: Cancel, say: Callable[[str], object], stuck: Stuck) -> None:
        """Train the queue's groups until it is over or there is a reason to stop.

        Check `queue.stopping` often, and let the trials write their checkpoints when it has a reason. Report slow steps
        to `say`. If a library does not let this call return, call `stuck` from another thread. Raises UserError if
        nothing can be trained, and KeyboardInterrupt or StopNow if trials that were asked to stop do not.
        """


#: Called with the reason why a backend's `run` cannot return.
Stuck = Callable[[UserError], object]


def backend_of(name: str, address: str | None = None) -> Backend:
    """Return the backend called `name`. Raises UserError for an unknown name, or an address that it cannot use."""
    if name == "ray":
        from kdtune.execute.ray_tune import RayTune

        return RayTune(address)
    if name != "inprocess":
        raise UserError([Problem("backend", f"there is no backend {name!r}", " or ".join(NAMES))])
    if address is not None:
        what = f"the backend inprocess trains in this process, but got the cluster {address}"
        raise UserError([Problem("address", what, "--backend ray, or no address")])
    from kdtune.execute.in_process import InProcess

    return InProcess()
