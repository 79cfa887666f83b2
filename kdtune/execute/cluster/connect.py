"""Connect to this machine's own Ray or to a cluster, or refuse in one message."""

from __future__ import annotations

import gc
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import ray
from ray.exceptions import AuthenticationError

from kdtune.errors import Problem, ResourceError
from kdtune.execute.cluster.folder import private_folder
from kdtune.execute.cluster.local import HERE, RESUME, local_ray
from kdtune.execute.cluster.ray_private import UnknownRay, knock, loopback, read_access
from kdtune.scoped import environment, kept_process, log_level
from kdtune.sweep.stopping import Cancel

#: Seconds that a server has to accept a connection.
CONNECT_S = 10.0
#: Seconds between two checks of the cluster, and failed checks in a row after which it counts as gone.
LOOK_S, MISSED = 3.0, 5
#: Seconds that a cluster that is gone may block the process.
HELD_UP_S = 10.0
#: Shown when a cluster asks for its token.
TOKEN = "RAY_AUTH_MODE=token, with the token in ~/.ray/auth_token or RAY_AUTH_TOKEN"
#: The form of a sweep's address.
ADDRESS = "HEAD:6379, as `ray start --head` printed it, or auto on a machine of the cluster"


#: Held while a sweep of this process uses Ray, which knows one cluster per process.
_in_use = threading.Lock()


@contextmanager
def connected(address: str | None, cancel: Cancel, say: Callable[[str], object]) -> Iterator[Path]:
    """Start Ray on this machine, or connect to the cluster at `address`; yield a private scratch folder.

    If this process is already connected to that cluster, the connection is used and left open. `cancel` defers
    interrupts while Ray shuts down, so that everything started here ends. Raises ResourceError if Ray does not start,
    if the cluster cannot be reached or asks for another token, and if this process uses another Ray.
    """
    name = HERE if address is None else address
    if not _in_use.acquire(blocking=False):
        what = "another sweep of this process uses Ray, which knows one cluster per process"
        raise ResourceError([Problem(name, what, "one sweep after the other, or backend inprocess")])
    stack = ExitStack()
    stack.callback(_in_use.release)
    try:
        folder = stack.enter_context(private_folder())
        if not _is_connected(address, name):
            where = address
            if where is None:
                where, access = stack.enter_context(local_ray(folder, say))
                stack.enter_context(_admitted(access))
            stack.enter_context(log_level("ray", logging.ERROR))
            stack.callback(disconnect)
            connect(where, name)
        yield folder
    finally:
        with cancel.deferred():
            stack.close()


def _is_connected(address: str | None, name: str) -> bool:
    """Return whether this process is connected to the cluster at `address`. Raises ResourceError for another one."""
    if not ray.is_initialized():
        return False
    there = ray.get_runtime_context().gcs_address
    if address in ("auto", there):
        return True
    what = f"this process is connected to the Ray at {there}, and Ray knows one cluster per process"
    raise ResourceError([Problem(name, what, f"address {there}, ray.shutdown() before, or backend inprocess")])


def connect(address: str, name: str | None = None) -> None:
    """Connect to the Ray at `address`, called `name` in messages. Raises ResourceError."""
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
    except Exception as error:  # Ray raises anything, even Exception itself
        own = Problem(name, f"started, but cannot be reached: {error}. Nothing is lost: {RESUME}")
        other = Problem(name, f"no Ray cluster answers: {error}", ADDRESS)
        raise ResourceError([own if name == HERE else other]) from None


def disconnect() -> None:
    """Shut Ray down while no other thread can collect garbage.

    Python collects garbage in any thread. If another thread frees a Ray object after Ray's core has ended and before
    its Python side has, Ray ends the process at once, before the sweep's books are closed.
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
    """Checks, in a thread, that the connected cluster still answers.

    Ray itself is silent for a minute and then ends the process; a sweep must close its books first. The caller checks
    `gone` often and calls `close` at the end. If Ray blocks the caller, `last_resort` is called in this thread.
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
        """Stop checking."""
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
    """Raise at once the error that Ray would raise after minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("this is not an address")
    socket.create_connection((host, int(port)), CONNECT_S).close()
    knock(address)


@contextmanager
def _admitted(access: Mapping[str, str]) -> Iterator[None]:
    """Use the token that `access` names within the context, then restore the user's."""
    token: dict[str, str | None] = dict.fromkeys(("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    try:
        with environment({**token, **access}):
            read_access()
            yield
    finally:
        read_access()
