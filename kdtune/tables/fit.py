"""Fit a table to the width of a terminal: nothing wraps, and every column stays readable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.cells import cell_len, set_cell_size

from kdtune.tables.model import Cell, Column, Table

#: Characters between two columns.
GAP = 2
#: Fewest characters to which a long text is cut.
SHORTEST = 12
#: Most columns that are repeated in each part of a table.
MOST_KEYS = 3


def width_of(table: Table) -> int:
    """Return the characters that a line of `table` needs, with GAP between its columns."""
    return sum(_widths(table)) + GAP * (len(table.columns) - 1)


def fitted(table: Table, width: int) -> list[Table]:
    """Return tables that show `table` in lines of at most `width` characters; `table` itself where it fits.

    Empty columns are left out, and a column of one text becomes a note. If the rest is still too
    wide, the columns are spread over several tables, each of which begins with those that tell the rows apart. Longer
    texts are cut.
    """
    if width_of(table) <= width or not table.rows:
        return [table]
    keys, widths = _keys(table), _widths(table)
    lead = sum(widths[:keys]) + GAP * (keys - 1)
    room = max(SHORTEST, width - lead - GAP)
    same, parts, line = list[str](), [list(range(keys))], lead
    for i, column in enumerate(table.columns[keys:], keys):
        texts = {row[i].text for row in table.rows}
        if texts == {""}:
            continue
        if len(texts) == 1 and len(table.rows) > 1 and len(column.label) <= SHORTEST:
            same.append(f"{column.label} {texts.pop()}")
            continue
        wide = GAP + min(widths[i], room)
        if line + wide > width and len(parts[-1]) > keys:
            parts.append(list(range(keys)))
            line = lead
        parts[-1].append(i)
        line += wide
    tables = [_part(table, chosen, room) for chosen in parts]
    notes = [*([f"in every row: {', '.join(same)}"] if same else []), *table.notes]
    tables[0] = replace(tables[0], title=table.title)
    tables[-1] = replace(tables[-1], notes=notes)
    return tables


def _keys(table: Table) -> int:
    """Return how many of the first columns tell all rows apart; 1 if more than MOST_KEYS would be needed."""
    for count in range(1, min(len(table.columns), MOST_KEYS + 1)):
        if len({tuple(cell.text for cell in row[:count]) for row in table.rows}) == len(table.rows):
            return count
    return 1


def _part(table: Table, chosen: Sequence[int], room: int) -> Table:
    """Return the chosen columns, with texts of at most `room` characters."""

    def cut(cell: Cell) -> Cell:
        return (
            cell if cell_len(cell.text) <= room else Cell(f"{set_cell_size(cell.text, room - 1)}…", strong=cell.strong)
        )

    columns = [table.columns[i] for i in chosen]
    labels = [Column(cut(Cell(column.label)).text, column.name, column.align) for column in columns]
    return Table(labels, [[cut(row[i]) for i in chosen] for row in table.rows])


def _widths(table: Table) -> list[int]:
    columns = enumerate(table.columns)
    return [max(map(cell_len, [column.label, *(row[i].text for row in table.rows)])) for i, column in columns]
