"""Schedules for values of the loss that may change from epoch to epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag

from kdtune.config.fields import NotNegative, Positive, Section

#: Tags that pydantic adds to the path of an error in a scheduled value; they are not part of the file.
SCHEDULE_TAGS = ("<value>", "<schedule>")


class WeightSchedule(Section):
    """A value that changes from `from` in the first epoch to `to` in the last, in equal steps (`linear`)."""

    schedule: Literal["linear"] = "linear"
    """Course between the two values: equal steps from epoch to epoch."""
    from_: NotNegative = Field(alias="from")
    """Value in the first epoch."""
    to: NotNegative
    """Value in the last epoch."""

    def at(self, epoch: int, epochs: int) -> float:
        """Return the value in `epoch` (counted from 1) of a trial with `epochs` epochs."""
        if self.is_constant(epochs):
            return self.from_
        share = (epoch - 1) / (epochs - 1)
        return (1 - share) * self.from_ + share * self.to

    def is_constant(self, epochs: int) -> bool:
        """Return whether all epochs have the same value."""
        return epochs == 1 or self.from_ == self.to

    def __str__(self) -> str:
        return f"{self.from_:.4g} → {self.to:.4g}"


class TemperatureSchedule(WeightSchedule):
    """A WeightSchedule whose values are above 0."""

    from_: Positive = Field(alias="from")
    """Value in the first epoch."""
    to: Positive
    """Value in the last epoch."""


def _tag(value: Any) -> str:
    return SCHEDULE_TAGS[isinstance(value, Mapping | BaseModel)]


Weight = Annotated[
    Annotated[NotNegative, Tag("<value>")] | Annotated[WeightSchedule, Tag("<schedule>")], Discriminator(_tag)
]
Temperature = Annotated[
    Annotated[Positive, Tag("<value>")] | Annotated[TemperatureSchedule, Tag("<schedule>")], Discriminator(_tag)
]


def value_at(value: float | WeightSchedule, epoch: int, epochs: int) -> float:
    """Return `value` in `epoch` (counted from 1) of a trial with `epochs` epochs."""
    return value.at(epoch, epochs) if isinstance(value, WeightSchedule) else value


def largest(value: float | WeightSchedule | Mapping[str, Any]) -> float:
    """Return the largest value over all epochs. Accepts a field or its canonical form."""
    if isinstance(value, WeightSchedule):
        return max(value.from_, value.to)
    return max(value["from"], value["to"]) if isinstance(value, Mapping) else value


def scheduled_values(values: Mapping[str, float | WeightSchedule], epoch: int, epochs: int) -> dict[str, float]:
    """Return name → value in `epoch` for those of `values` that a schedule changes."""
    schedules = {name: value for name, value in values.items() if isinstance(simplified(value, epochs), WeightSchedule)}
    return {name: value_at(value, epoch, epochs) for name, value in schedules.items()}


def simplified(value: float | WeightSchedule, epochs: int) -> float | WeightSchedule:
    """Return the number that a constant schedule stands for, or `value` itself."""
    return value.from_ if isinstance(value, WeightSchedule) and value.is_constant(epochs) else value
