"""What a teacher or a start takes from the trial that names it, on raw configurations as they stand in a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticCustomError

#: What in a trial may be a trial of its own.
NESTED = ("teacher", "start")
#: What a teacher or a start does not take from the trial that names it.
NOT_INHERITED = ("teacher", "start", "imported", "finetune", "frozen")


def absent(value: Any) -> Any:
    """Return None for the word `none`, else `value`."""
    return None if value == "none" else value


def trial_or_none(value: Any) -> Any:
    """Return what `absent` does. Raises PydanticCustomError for any other text: only a sweep knows trials by name."""
    if isinstance(value, str) and value != "none":
        rule = "a trial is given here; a teacher by its name is chosen in a sweep's search.space or search.blocks"
        raise PydanticCustomError("teacher", f"{rule}, but got {value!r}")
    return absent(value)


def inherit(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """The raw configuration of a teacher or start: `override` on top of what of `base` is inherited.

    A data fraction `match` is base's.
    """
    inherited = {name: value for name, value in base.items() if name not in NOT_INHERITED}
    data = override.get("data")
    if isinstance(data, Mapping) and data.get("fraction") == "match":
        override = {**override, "data": {name: value for name, value in data.items() if name != "fraction"}}
    return merge(inherited, override)


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """`override` on top of `base`, section by section; neither is changed."""
    merged = dict(base)
    for name, value in override.items():
        below = merged.get(name)
        # Stages are one value, not a section: naming other stages replaces them all.
        nested = isinstance(below, Mapping) and isinstance(value, Mapping) and name != "stages"
        merged[name] = merge(below, value) if nested else value  # type: ignore[arg-type]
    return merged
