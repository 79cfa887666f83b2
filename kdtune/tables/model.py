"""What a table is, whatever its form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Column:
    """A column's headings and alignment."""

    label: str
    """The heading that people read."""
    name: str = ""
    """The heading in CSV; `label` if empty."""
    align: Literal["left", "right"] = "left"


@dataclass(frozen=True)
class Cell:
    """The text that is shown, and the exact value for CSV."""

    text: str
    value: object = None
    """None stands for the text itself."""
    strong: bool = False
    """Whether the text is emphasised, where the form can do that."""

    @property
    def has_digits(self) -> bool:
        """Whether the text shows a figure, which links to its trial."""
        return any(map(str.isdigit, self.text))


@dataclass(frozen=True)
class Table:
    """A table with its title and notes. Raises ValueError if a row does not have one cell per column."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    notes: Sequence[str] = ()
    """Paragraphs about the table as a whole."""
    name: str = ""
    """The table's identifier: the stem of its files and its anchor in a page."""
    keys: Sequence[Sequence[str]] = field(default_factory=list)
    """For each row, the keys of the trials that its figures come from; may be empty."""
    lists_trials: bool = False
    """Whether each row is one trial. The links of other tables then lead here, and none leaves."""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"each row must have {len(self.columns)} cells, one per column")

    @classmethod
    def of(
        cls, columns: Sequence[Column | str], rows: Sequence[Sequence[Cell | str]], title: str = "", *notes: str
    ) -> Table:
        """Return a table of plain labels and texts, for tables that are only read."""
        return cls(
            [Column(column) if isinstance(column, str) else column for column in columns],
            [[Cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows],
            title,
            notes,
        )

    @property
    def names(self) -> list[str]:
        """The headings in CSV, each different: the second `gain` is called `gain (2)`."""
        found: list[str] = []
        for column in self.columns:
            name = base = column.name or column.label
            count = 1
            while name in found:
                count += 1
                name = f"{base} ({count})"
            found.append(name)
        return found


def number(label: str, name: str = "") -> Column:
    """Return a column of figures, which are aligned on the right."""
    return Column(label, name, "right")
