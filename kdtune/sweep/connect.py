"""Ray on this machine, or a cluster that is there: reached, or refused in one message."""

from __future__ import annotations

import gc
import logging
import socket
import threading
from collections.abc import Callable

import ray
from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError

from kdtune.errors import Problem, ResourceError

#: Seconds for a server to take a connection.
PATIENCE = 10.0
#: Seconds between two looks whether a cluster is still there, and how many it may miss before it counts as gone.
LOOK_S, MISSED = 3.0, 5
#: Seconds that a process may be held up by a cluster that has gone.
HELD_UP_S = 10.0
#: How one has a cluster's token.
TOKEN = "RAY_AUTH_MODE=token, with the token in ~/.ray/auth_token or RAY_AUTH_TOKEN"
#: What a sweep's address must be.
ADDRESS = "HEAD:6379, as `ray start --head` printed it, or auto on a machine of the cluster"


def connect(address: str | None) -> None:
    """Start Ray on this machine or, with an address, connect to the cluster there.

    Raises ResourceError for a cluster that is not there, is not this machine's, or asks for another token.
    """
    try:
        if address not in (None, "auto"):
            _knock(str(address))
        # "local": without an address Ray would join whatever cluster it finds on this machine.
        where = "local" if address is None else address
        ray.init(address=where, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except AuthenticationError:
        raise ResourceError([Problem(str(address), "asks for the cluster's token", TOKEN)]) from None
    except (OSError, RuntimeError, ValueError) as error:
        if address is None:
            raise
        raise ResourceError([Problem(address, f"no Ray cluster answers: {error}", ADDRESS)]) from None


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


def _knock(address: str) -> None:
    """Raise at once what Ray would raise after twenty attempts, or after minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("this is no address")
    socket.create_connection((host, int(port)), PATIENCE).close()
    ensure_token_if_auth_enabled(create_token_if_missing=False)  # without one the next line would end the process
    GcsClient(address=address)
