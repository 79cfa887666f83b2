"""The best of several candidates while they come in one by one: one value, or the Pareto set of several objectives."""

from __future__ import annotations

from collections.abc import Sequence

#: Objectives, turned so that more is better.
Values = tuple[float, ...]


class Front:
    """The candidates that no other one beats. `modes` has "max" or "min" for each objective.

    One candidate beats another where it is as good in every objective and better in one. Taking one in costs the number
    of different values in the front: with one objective that is one.
    """

    def __init__(self, modes: Sequence[str]) -> None:
        self._signs = [1 if mode == "max" else -1 for mode in modes]
        self._values: dict[int, Values] = {}
        self._front: dict[Values, list[int]] = {}

    def add(self, number: int, values: Sequence[float]) -> None:
        """Take in candidate `number` with its objectives."""
        self._values[number] = tuple(sign * value for sign, value in zip(self._signs, values, strict=True))
        self._place(number)

    def _place(self, number: int) -> None:
        mine = self._values[number]
        if not any(_beats(other, mine) for other in self._front):
            self._front = {other: numbers for other, numbers in self._front.items() if not _beats(mine, other)}
            self._front.setdefault(mine, []).append(number)

    def remove(self, number: int) -> None:
        """Forget a candidate, where it was taken in: its end no longer holds."""
        mine = self._values.pop(number, None)
        if mine in self._front:  # then others may come to the front
            self._front = {}
            for other in self._values:
                self._place(other)

    def numbers(self) -> list[int]:
        """The candidates in the front, rising. Of one objective the first is the best: the lower number wins a tie."""
        return sorted(number for numbers in self._front.values() for number in numbers)

    def values(self, number: int) -> list[float]:
        """The objectives of a candidate that was taken in."""
        return [sign * value for sign, value in zip(self._signs, self._values[number], strict=True)]


def _beats(a: Values, b: Values) -> bool:
    return a != b and all(x >= y for x, y in zip(a, b, strict=True))
