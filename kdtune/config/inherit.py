"""Let a teacher or a start inherit from the trial that names it, on raw configurations as read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdtune.config.fields import broken

#: A configuration as a file holds it, before validation: sections of values, under the file's names.
RawConfig = dict[str, Any]

#: Fields of a trial that may hold another trial.
NESTED = ("teacher", "start")
#: Fields that a teacher or a start does not inherit.
NOT_INHERITED = ("teacher", "start", "imported", "finetune", "frozen")


def none_as_null(value: Any) -> Any:
    """Return None for the word `none`, else `value`."""
    return None if value == "none" else value


def trial_or_none(value: Any) -> Any:
    """Return None for the word `none`, else `value`.

    Raises PydanticCustomError for any other text: only a sweep knows trials by name.
    """
    if isinstance(value, str) and value != "none":
        rule = "must be a trial; a teacher's name can be chosen only in a sweep's search.space or search.blocks"
        raise broken(rule, repr(value))
    return none_as_null(value)


def inherit(base: Mapping[str, Any], override: Mapping[str, Any]) -> RawConfig:
    """Return the raw configuration of a teacher or start: `override` on top of the inherited part of `base`.

    A data fraction `match` becomes base's fraction.
    """
    inherited = {name: value for name, value in base.items() if name not in NOT_INHERITED}
    data = override.get("data")
    if isinstance(data, Mapping) and data.get("fraction") == "match":
        override = {**override, "data": {name: value for name, value in data.items() if name != "fraction"}}
    return merge(inherited, override)


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> RawConfig:
    """Return `override` on top of `base`, merged section by section. Changes neither."""
    merged = dict(base)
    for name, value in override.items():
        below = merged.get(name)
        # Stages are one value, not a section: they are replaced as a whole.
        nested = isinstance(below, Mapping) and isinstance(value, Mapping) and name != "stages"
        merged[name] = merge(below, value) if nested else value  # type: ignore[arg-type]
    return merged
