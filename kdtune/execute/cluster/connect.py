"""Ray on this machine, or a cluster that is there: started or reached, or refused in one message."""

from __future__ import annotations

import gc
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import ray
from ray.exceptions import AuthenticationError

from kdtune.errors import Problem, ResourceError
from kdtune.execute.cluster.folder import private_folder
from kdtune.execute.cluster.local import LocalRay, local_ray
from kdtune.execute.cluster.ray_private import UnknownRay, knock, loopback, read_access
from kdtune.scoped import environment, kept_process, log_level
from kdtune.sweep.cancel import Cancel

#: Seconds for a server to take a connection.
PATIENCE = 10.0
#: Seconds between two looks whether a cluster is still there, and how many it may miss before it counts as gone.
LOOK_S, MISSED = 3.0, 5
#: Seconds that a process may be held up by a cluster that has gone.
HELD_UP_S = 10.0
#: How one has a cluster's token.
TOKEN = "RAY_AUTH_MODE=token, with the token in ~/.ray/auth_token or RAY_AUTH_TOKEN"
#: What messages call the Ray that kdtune starts.
HERE = "Ray on this machine"
#: What a sweep's address must be.
ADDRESS = "HEAD:6379, as `ray start --head` printed it, or auto on a machine of the cluster"


#: Held while a sweep of this process uses Ray, which knows one cluster a process.
_in_use = threading.Lock()


@contextmanager
def connected(address: str | None, cancel: Cancel, say: Callable[[str], object]) -> Iterator[Path]:
    """Start Ray on this machine or, with an address, connect to the cluster there; yields a private scratch folder.

    Where this process is connected to that cluster already, the connection is used, and stays. `cancel` defers
    interrupts while Ray ends, so that nothing is left running that was started here. Raises ResourceError for a Ray
    that does not start, for a cluster that is not there, is not this machine's, or asks for another token, and where
    this process uses another Ray.
    """
    name = HERE if address is None else address
    if not _in_use.acquire(blocking=False):
        what = "another sweep of this process uses Ray, which knows one cluster a process"
        raise ResourceError([Problem(name, what, "one sweep after the other, or backend inprocess")])
    stack = ExitStack()
    stack.callback(_in_use.release)
    try:
        folder = stack.enter_context(private_folder())
        if not _is_connected(address, name):
            where = address
            if where is None:
                local = stack.enter_context(local_ray(folder, say))
                stack.enter_context(_admitted(local))
                where = local.address
            stack.enter_context(log_level("ray", logging.ERROR))
            stack.callback(disconnect)
            connect(where, name)
        yield folder
    finally:
        with cancel.deferred():
            stack.close()


def _is_connected(address: str | None, name: str) -> bool:
    """Whether this process is connected to the cluster at `address`. Raises ResourceError for another one."""
    if not ray.is_initialized():
        return False
    there = ray.get_runtime_context().gcs_address
    if address in ("auto", there):
        return True
    what = f"this process is connected to the Ray at {there}, and Ray knows one cluster a process"
    raise ResourceError([Problem(name, what, f"address {there}, ray.shutdown() before, or backend inprocess")])


def connect(address: str, name: str | None = None) -> None:
    """Connect to the Ray that `address` names, called `name` in messages; raises ResourceError."""
    name = name or address
    try:
        if address != "auto":
            _reach(address)
        with loopback(address), kept_process("PYTHONBREAKPOINT"):
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except UnknownRay:
        raise
    except AuthenticationError:
        raise ResourceError([Problem(name, "asks for the cluster's token", TOKEN)]) from None
    except SystemExit:  # Ray's handler of SIGTERM while it connects
        raise KeyboardInterrupt from None
    except Exception as error:  # Ray raises whatever its parts do, Exception itself included
        if name == HERE:
            what = f"started, but cannot be reached: {error}. Nothing is lost: the same command goes on"
            raise ResourceError([Problem(name, what)]) from None
        raise ResourceError([Problem(name, f"no Ray cluster answers: {error}", ADDRESS)]) from None


def disconnect() -> None:
    """`ray.shutdown`, with no garbage left for another thread to collect meanwhile.

    Python collects garbage in whatever thread makes some. Where another one than this frees a Ray object between the
    end of Ray's core and the end of its Python side, Ray ends the process at once, in the midst of closing its books.
    """
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if collecting:
            gc.enable()


class ClusterWatch:
    """Looks, in a thread, whether the cluster that Ray is connected to still answers.

    Ray itself says nothing for a minute, and then ends the process; a sweep is to end with its books closed. Whoever
    uses this looks at `gone` often, and closes it; where he is held up by Ray itself, `last_resort` is called, in this
    thread, and has to end the process.
    """

    def __init__(self, last_resort: Callable[[], object]) -> None:
        self._last_resort = last_resort
        self._address = ray.get_runtime_context().gcs_address
        self._missed = 0
        self._over = threading.Event()
        threading.Thread(target=self._look, name="kdtune-cluster", daemon=True).start()

    @property
    def gone(self) -> bool:
        return self._missed >= MISSED

    def close(self) -> None:
        """Look no more."""
        self._over.set()

    def _look(self) -> None:
        host, _, port = self._address.rpartition(":")
        while not self._over.wait(LOOK_S):
            try:
                socket.create_connection((host.strip("[]"), int(port)), LOOK_S).close()
                self._missed = 0
            except OSError:
                self._missed += 1
            if self.gone:
                break
        if self.gone and not self._over.wait(HELD_UP_S):
            self._last_resort()


def _reach(address: str) -> None:
    """Raise at once what Ray would raise after minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("this is no address")
    socket.create_connection((host, int(port)), PATIENCE).close()
    knock(address)


@contextmanager
def _admitted(local: LocalRay) -> Iterator[None]:
    """Within the context this process uses the token of `local`, and afterwards the user's again."""
    token: dict[str, str | None] = dict.fromkeys(("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    try:
        with environment({**token, **local.environment}):
            read_access()
            yield
    finally:
        read_access()
