"""The best candidates so far: the best one by a single objective, or the Pareto set of several objectives."""

from __future__ import annotations

from collections.abc import Sequence

#: Objectives, with their signs set so that more is better.
Values = tuple[float, ...]


class Front:
    """The candidates that no other candidate beats. `modes` has "max" or "min" for each objective.

    A candidate beats another if it is at least as good in every objective and better in one. Adding a candidate takes
    time proportional to the number of distinct values in the front, which is one for a single objective.
    """

    def __init__(self, modes: Sequence[str]) -> None:
        self._signs = [1 if mode == "max" else -1 for mode in modes]
        self._values: dict[int, Values] = {}
        self._front: dict[Values, list[int]] = {}

    def add(self, number: int, values: Sequence[float]) -> None:
        """Add candidate `number` with its objectives."""
        self._values[number] = tuple(sign * value for sign, value in zip(self._signs, values, strict=True))
        self._place(number)

    def _place(self, number: int) -> None:
        mine = self._values[number]
        if not any(beats(other, mine) for other in self._front):
            self._front = {other: numbers for other, numbers in self._front.items() if not beats(mine, other)}
            self._front.setdefault(mine, []).append(number)

    def remove(self, number: int) -> None:
        """Remove a candidate, if it was added."""
        mine = self._values.pop(number, None)
        if mine in self._front:  # others may now belong to the front
            self._front = {}
            for other in self._values:
                self._place(other)

    def numbers(self) -> list[int]:
        """Return the front in ascending order. With one objective the first is the best: the lower number wins ties."""
        return sorted(number for numbers in self._front.values() for number in numbers)

    def values(self, number: int) -> list[float]:
        """Return the objectives of a candidate that was added."""
        return [sign * value for sign, value in zip(self._signs, self._values[number], strict=True)]


def beats(a: Values, b: Values) -> bool:
    """Return whether `a` is at least as good as `b` in every objective and better in one; more is better."""
    return a != b and all(x >= y for x, y in zip(a, b, strict=True))
