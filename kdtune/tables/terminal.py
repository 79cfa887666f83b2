"""A table on a terminal, by rich, which redraws it and cuts its lines at the terminal's width."""

from __future__ import annotations

from rich import box
from rich.table import Table as Drawn
from rich.text import Text

from kdtune.parse import printable
from kdtune.tables.model import Table


def for_terminal(table: Table) -> Drawn:
    """Return the columns and rows of `table` for a rich console; each row takes one line."""
    found = Drawn(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, header_style="bold")
    for column in table.columns:
        found.add_column(_text(column.label), justify=column.align, no_wrap=True)
    for row in table.rows:
        found.add_row(*(_text(cell.text, "bold" if cell.strong else "") for cell in row))
    return found


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style)  # as Text, because names may contain rich's markup in brackets
