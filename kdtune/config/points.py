"""Points of a search space: assignments of values to its parameters."""

from __future__ import annotations

from collections.abc import Mapping

from kdtune.config.space import Parameter, Scalar, resolve


def fitted(
    space: Mapping[str, Parameter], block: Mapping[str, Scalar], given: Mapping[str, Scalar], *, whole: bool = False
) -> dict[str, Scalar] | None:
    """Return `given` as a point of `space`, with the space's names; None if a value is not in the space.

    Names may be short or dotted. Parameters that do not exist with these values and those of the `block` are left out,
    and so are names that the space does not have. With `whole`, a point that lacks a parameter is None, too.
    """
    by_path = {resolve(name): value for name, value in given.items()}
    values: dict[str, Scalar] = {}
    for name, parameter in space.items():
        if not parameter.active({**block, **values}):
            continue
        if resolve(name) in by_path:
            try:
                values[name] = parameter.held(by_path[resolve(name)])
            except ValueError:
                return None
        elif whole:
            return None
    return values
