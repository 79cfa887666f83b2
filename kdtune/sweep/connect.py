"""Ray on this machine, or a cluster that is there: reached, or refused in one message."""

from __future__ import annotations

import logging
import socket

import ray
from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError

from kdtune.errors import Problem, ResourceError

#: Seconds for a server to take a connection.
PATIENCE = 10.0
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


def _knock(address: str) -> None:
    """Raise at once what Ray would raise after twenty attempts, or after minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("this is no address")
    socket.create_connection((host, int(port)), PATIENCE).close()
    ensure_token_if_auth_enabled(create_token_if_missing=False)  # without one the next line would end the process
    GcsClient(address=address)
