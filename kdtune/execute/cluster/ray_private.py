"""All that is used of Ray's private parts, each with the reason. Ray's public calls offer none of it.

Where a version of Ray has moved one of these parts, UnknownRay says so in plain words. Nothing is imported before it
is used, of kdtune nothing at all: `head.py` loads this file in a process that may not find kdtune.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class UnknownRay(Exception):
    """This version of Ray does not have what kdtune uses of it."""


def _guarded(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Raise UnknownRay where Ray's part is not there, or is not called so any more."""

    @wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except (ImportError, AttributeError, TypeError) as error:
            import ray

            raise UnknownRay(f"Ray {ray.__version__} is not one that kdtune knows: {error}") from error

    return call


# ---- in the driver ---------------------------------------------------------------------------------------------------


@_guarded
def knock(address: str) -> None:
    """Raise at once what `ray.init` raises after twenty attempts, or after minutes."""
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    # Without a token where one is asked for, the next line would end the process.
    ensure_token_if_auth_enabled(create_token_if_missing=False)
    GcsClient(address=address)


@_guarded
def read_access() -> None:
    """Have Ray's core read the variables of its token again: it reads them once, when it is imported."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def loopback(address: str) -> Iterator[None]:
    """Within the context Ray takes a loopback address as it is, where it would put the machine's own in its place.

    That is Ray's behaviour on macOS and Windows, and a constant of it. A Ray without the constant is left alone.
    """
    try:
        from ray._private import ray_constants
    except ImportError:
        yield
        return
    before = getattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    ray_constants.ENABLE_RAY_CLUSTER = before and not address.startswith(("127.", "[::1]"))
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@_guarded
def error_of(trial: Any) -> BaseException:
    """Return why a trial of Ray Tune failed. `Trial.get_pickled_error` finds that only after the sweep has ended."""
    from ray import cloudpickle

    if trial.pickled_error_file is None:
        return RuntimeError("an error that Ray does not keep")
    with open(trial.pickled_error_file, "rb") as file:
        return cloudpickle.load(file)


# ---- in the process that holds this machine's own Ray ----------------------------------------------------------------


@_guarded
def start_head(folder: str) -> str:
    """Start Ray in `folder`, bound to the loopback interface, and return its address. Raises whatever Ray raises.

    Public calls bind to every interface.
    """
    from ray._common.network_utils import get_localhost_ip
    from ray._private.node import Node
    from ray._private.parameter import RayParams
    from ray._raylet import AuthenticationMode, get_authentication_mode  # type: ignore[attr-defined]

    wanted = os.environ.get("RAY_AUTH_MODE", "").lower()
    if wanted == "token" and get_authentication_mode() != AuthenticationMode.TOKEN:
        raise RuntimeError("this version of Ray asks for no token")
    params = RayParams(
        node_ip_address=get_localhost_ip(),
        # Ray makes its folder one that everybody may enter; nobody else enters the one around it.
        temp_dir=os.path.join(folder, "r"),
        session_name=f"s{os.getpid()}",  # Ray's own names take up 41 of the 107 bytes that a socket's path may have
        include_dashboard=False,
        # Ray's scaling of clusters and its copying of logs to the driver, of which a sweep uses neither.
        no_monitor=True,
        include_log_monitor=False,  # type: ignore[arg-type]
    )
    return str(Node(params, head=True, shutdown_at_exit=False, spawn_reaper=True).gcs_address)
