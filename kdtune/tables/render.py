"""The renderer of tables: one function per form, each of which shows every text as text."""

from __future__ import annotations

from collections.abc import Callable

from tabulate import tabulate

from kdtune.parse import printable
from kdtune.tables.escape import csv_text, latex_comment, latex_text, markdown_cell, markdown_text
from kdtune.tables.model import Cell, Table


def render(table: Table, form: str) -> str:
    """Return `table` in one of FORMS, without a line break at the end."""
    return RENDERERS[form](table)


def _text(table: Table) -> str:
    """Each row takes one line; title and notes stand directly above and below."""
    body = _tabulated(table, "simple", printable, lambda cell: printable(cell.text))
    return "\n".join([*([printable(table.title)] if table.title else []), body, *map(printable, table.notes)])


def _markdown(table: Table) -> str:
    def shown(cell: Cell) -> str:
        text = markdown_cell(cell.text)
        return f"**{text}**" if cell.strong and text and text == text.strip() else text

    body = _tabulated(table, "github", markdown_cell, shown)
    title = [f"**{markdown_text(table.title)}**"] if table.title else []
    return "\n\n".join([*title, body, *map(markdown_text, table.notes)])


def _tabulated(table: Table, style: str, head: Callable[[str], str], cell: Callable[[Cell], str]) -> str:
    return tabulate(
        [[cell(each) for each in row] for row in table.rows],
        [head(column.label) for column in table.columns],
        tablefmt=style,
        disable_numparse=True,
        colalign=[column.align for column in table.columns] if table.rows else None,
    )


def _csv(table: Table) -> str:
    """The exact values, with the keys of each row's trials in a last column."""
    keys = [" ".join(keys) for keys in table.keys] if not table.lists_trials else []
    rows: list[list[object]] = [[*table.names, *(["keys"] if any(keys) else [])]]
    for i, row in enumerate(table.rows):
        values = [cell.text if cell.value is None else cell.value for cell in row]
        rows.append([*values, *([keys[i]] if any(keys) else [])])
    return csv_text(rows).removesuffix("\n")


def _latex(table: Table) -> str:
    """A booktabs tabular, with title and notes in comments above it."""

    def shown(cell: Cell) -> str:
        text = latex_text(cell.text)
        return rf"\textbf{{{text}}}" if cell.strong else text

    lines = [[latex_text(column.label) for column in table.columns], *([shown(cell) for cell in r] for r in table.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    first, *rest = (
        f" {' & '.join(text.ljust(width) for text, width in zip(line, widths, strict=True))} \\\\" for line in lines
    )
    about = [latex_comment(text) for text in (table.title, *table.notes) if text]
    begin = rf"\begin{{tabular}}{{{''.join(column.align[0] for column in table.columns)}}}"
    return "\n".join([*about, begin, r"\toprule", first, r"\midrule", *rest, r"\bottomrule", r"\end{tabular}"])


def _html(table: Table) -> str:
    from kdtune.tables.html import table_html  # Jinja2 is imported only for pages

    return table_html(table)


RENDERERS: dict[str, Callable[[Table], str]] = {
    "text": _text,
    "markdown": _markdown,
    "csv": _csv,
    "latex": _latex,
    "html": _html,
}
#: The forms of a table.
FORMS = tuple(RENDERERS)
