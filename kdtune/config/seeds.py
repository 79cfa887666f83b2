"""The seeds of a sweep: a fixed list, or a race that spends further seeds where they decide."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from kdtune.config.fields import Positive, Section, Seed

#: Maximum number of seeds of a candidate.
MOST_SEEDS = 1000


class RaceConfig(Section):
    """A race. Every candidate is trained with the first seeds. The sweep then looks at the block's results, drops the
    candidates that cannot win any more, and trains the others and their control with one more seed, until the block's
    question is decided."""

    first: Annotated[int, Field(ge=2, le=MOST_SEEDS)] = 2
    """Number of seeds before the first look: 0, 1, … The search learns from the mean over them."""
    most: Annotated[int, Field(ge=2, le=MOST_SEEDS)] = 8
    """Maximum number of seeds of a candidate."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Probability that no block's decision is wrong, over all looks and candidates."""
    margin: Positive | None = None
    """Difference that does not matter, in the unit of gains: points (0.01) for accuracies. If it is given, a block is
    also decided when its candidates are surely within this margin of the control."""

    def __str__(self) -> str:
        margin = "" if self.margin is None else f", margin {self.margin:g}"
        return f"a race from {self.first} to {self.most}, {100 * self.confidence:g}% confidence{margin}"


class RaceSeeds(Section):
    """Seeds that a race chooses."""

    race: RaceConfig
    """Race candidates instead of training each with the same number of seeds."""


def _tag(value: Any) -> str:
    return "raced" if isinstance(value, dict | RaceSeeds) else "fixed"


#: Tags that pydantic adds to the path of an error in the seeds; they are not part of the file.
SEEDS_TAGS = ("fixed", "raced")
Seeds = Annotated[
    Annotated[list[Seed], Field(min_length=1, max_length=MOST_SEEDS), Tag("fixed")]
    | Annotated[RaceSeeds, Tag("raced")],
    Discriminator(_tag),
]
