"""All uses of Ray's private parts, each with its reason. Ray's public API offers none of this.

If a version of Ray lacks one of these parts, UnknownRay says so. Imports happen inside the functions, and none is from
kdtune: `head.py` loads this file in a process that may not find kdtune.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class UnknownRay(Exception):
    """This version of Ray lacks a private part that kdtune uses."""


@contextmanager
def _guarded() -> Iterator[None]:
    """Raise UnknownRay if Ray's part is missing or takes other arguments. Decorates a function."""
    try:
        yield
    except (ImportError, AttributeError, TypeError) as error:
        import ray

        raise UnknownRay(f"Ray {ray.__version__} is not supported: {error}") from error


# ---- in the driver ---------------------------------------------------------------------------------------------------


@_guarded()
def knock(address: str) -> None:
    """Raise at once the error that `ray.init` would raise after twenty attempts or minutes."""
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    # If a token is required and missing, the next line would end the process.
    ensure_token_if_auth_enabled(create_token_if_missing=False)
    GcsClient(address=address)


@_guarded()
def read_access() -> None:
    """Make Ray's core read the variables of its token again. By itself it reads them once, at its import."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def loopback(address: str) -> Iterator[None]:
    """Within the context, keep Ray from replacing a loopback address by the machine's own.

    Ray keeps it on macOS and Windows, as one of its constants says. A Ray without the constant is left unchanged.
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


@_guarded()
def error_of(trial: Any) -> BaseException:
    """Return why a trial of Ray Tune failed. `Trial.get_pickled_error` works only after the run has ended."""
    from ray import cloudpickle

    if trial.pickled_error_file is None:
        return RuntimeError("an error that Ray did not record")
    with open(trial.pickled_error_file, "rb") as file:
        return cloudpickle.load(file)


# ---- in the process that holds this machine's own Ray ----------------------------------------------------------------


@_guarded()
def start_head(folder: str) -> str:
    """Start Ray in `folder`, bound to the loopback interface, and return its address. Raises whatever Ray raises.

    Ray's public calls bind to every interface.
    """
    from ray._common.network_utils import get_localhost_ip
    from ray._private.node import Node
    from ray._private.parameter import RayParams
    from ray._raylet import AuthenticationMode, get_authentication_mode  # type: ignore[attr-defined]

    wanted = os.environ.get("RAY_AUTH_MODE", "").lower()
    if wanted == "token" and get_authentication_mode() != AuthenticationMode.TOKEN:
        raise RuntimeError("this version of Ray does not check tokens")
    params = RayParams(
        node_ip_address=get_localhost_ip(),
        # Ray makes its folder accessible to everyone, but the folder around it is private.
        temp_dir=os.path.join(folder, "r"),
        session_name=f"s{os.getpid()}",  # Ray's own names take up 41 of the 107 bytes of a socket's path
        include_dashboard=False,
        # A sweep needs neither Ray's autoscaler nor copies of its logs in the driver.
        no_monitor=True,
        include_log_monitor=False,  # type: ignore[arg-type]
    )
    return str(Node(params, head=True, shutdown_at_exit=False, spawn_reaper=True).gcs_address)
