"""Everything that is used of Ray's private parts in a driver, each with the reason; `head.py` has the rest.

`head.py` runs before anything of kdtune can be imported. Ray's public calls offer none of this. Where a version of Ray
has moved one of these parts, the sweep is refused with its name, and every other backend works.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import ray

from kdtune.errors import Problem, ResourceError


def _moved(error: Exception) -> NoReturn:
    what = f"Ray {ray.__version__} is not one that kdtune knows: {error}"
    raise ResourceError([Problem("Ray", what, "the version in constraints.txt, or --backend inprocess")]) from None


try:
    from ray._private import ray_constants
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined]
except ImportError as error:
    _moved(error)


def knock(address: str) -> None:
    """Raise at once what `ray.init` raises after twenty attempts, or after minutes."""
    try:
        # Without a token where one is asked for, the next line would end the process.
        ensure_token_if_auth_enabled(create_token_if_missing=False)
        GcsClient(address=address)
    except (AttributeError, TypeError) as error:
        _moved(error)


def read_access() -> None:
    """Have Ray's core read the variables of its token again: it did when it was imported."""
    try:
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()
    except (AttributeError, TypeError) as error:
        _moved(error)


@contextmanager
def loopback(address: str) -> Iterator[None]:
    """Within the context Ray takes a loopback address as it is, where it would put the machine's own in its place.

    That is Ray's behaviour on macOS and Windows, and a constant of it.
    """
    before = getattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    ray_constants.ENABLE_RAY_CLUSTER = before and not address.startswith(("127.", "[::1]"))
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
