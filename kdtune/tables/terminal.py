"""Tables on a terminal, fitted to its width: drawn by rich, which can redraw them, or as text."""

from __future__ import annotations

import io
import textwrap
from itertools import chain

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Drawn
from rich.text import Text

from kdtune.parse import printable
from kdtune.tables.fit import fitted
from kdtune.tables.model import Table
from kdtune.tables.render import render


def text_for(table: Table, width: int | None) -> str:
    """Return `table` as text, in lines of at most `width` characters if that is given."""
    text = render(table, "text")
    if width is None or max(map(cell_len, text.splitlines())) <= width:
        return text
    return "\n\n".join(_text_of(part, width) for part in fitted(table, width))


def _text_of(table: Table, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False, color_system=None)
    with console.capture() as drawn:
        console.print(for_terminal(table))
    lines = [line.rstrip() for line in drawn.get().splitlines()]
    about = [[*textwrap.wrap(printable(text), width)] for text in (table.title, *table.notes) if text]
    above, below = (about[:1], about[1:]) if table.title else ([], about)
    return "\n".join([*chain(*above), *lines, *chain(*below)])


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
