"""A table of a report, in every form in which it leaves: HTML, Markdown, CSV and LaTeX."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

from kdtune.report.escape import csv_text, latex_comment, markdown_text, table_text, title_text

#: Rows that a page shows at once; the others unfold.
SHOWN = 20


@dataclass(frozen=True)
class Cell:
    """What is shown, and the exact figure for CSV."""

    text: str
    value: object = None


@dataclass(frozen=True)
class Sheet:
    """A table; `keys` has for each row the trials that its figures come from."""

    name: str
    """Of its files, and of its place in the page."""
    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    keys: Sequence[Sequence[str]] = field(default_factory=list)
    note: str = ""
    lists_trials: bool = False
    """Is each row one trial? Then links lead here, and from here nowhere."""

    def texts(self) -> list[list[str]]:
        return [[cell.text for cell in row] for row in self.rows]


def anchor(key: str) -> str:
    """Where the page says what the trial is."""
    return html.escape(f"trial-{key}")


def as_html(sheet: Sheet) -> str:
    """A figure, with its rows beyond SHOWN folded away."""
    heads = "".join(f"<th>{html.escape(head)}</th>" for head in sheet.heads)
    lines = [_html_row(sheet, i) for i in range(len(sheet.rows))]

    def table(part: list[str]) -> str:
        return f"<div class=wide><table><thead><tr>{heads}</tr></thead><tbody>{''.join(part)}</tbody></table></div>"

    rest = len(lines) - SHOWN
    folded = sheet.lists_trials or rest <= 3
    body = table(lines) if folded else table(lines[:SHOWN])
    if not folded:
        body += f"<details><summary>{rest} more rows</summary>{table(lines[SHOWN:])}</details>"
    note = f"<p class=note>{html.escape(sheet.note)}</p>" if sheet.note else ""
    title = html.escape(sheet.title)
    return f'<figure id="{html.escape(sheet.name)}"><figcaption>{title}</figcaption>{body}{note}</figure>'


def _html_row(sheet: Sheet, i: int) -> str:
    keys = sheet.keys[i] if i < len(sheet.keys) else ()
    cells = []
    for cell in sheet.rows[i]:
        text = html.escape(cell.text)
        if keys and not sheet.lists_trials and any(map(str.isdigit, text)):
            text = f'<a href="#{anchor(keys[0])}">{text}</a>'
        cells.append(f"<td{' class=n' if _is_number(cell.text) else ''}>{text}</td>")
    name = f' id="{anchor(keys[0])}"' if keys and sheet.lists_trials else ""
    return f"<tr{name}>{''.join(cells)}</tr>"


def _is_number(text: str) -> bool:
    return text[:1] in "+-−0123456789" and not any(map(str.isalpha, text)) if text else False


def as_markdown(sheet: Sheet) -> str:
    table = table_text(sheet.texts(), sheet.heads, "markdown")
    note = f"\n\n{markdown_text(sheet.note)}" if sheet.note else ""
    return f"{title_text(sheet.title, 'markdown')}\n{table}{note}"


def as_csv(sheet: Sheet) -> str:
    """With the exact figures, and the trials' keys in a last column."""
    keys = [" ".join(keys) for keys in sheet.keys]
    with_keys = any(keys) and not sheet.lists_trials
    rows: list[list[object]] = [[*sheet.heads, *(["keys"] if with_keys else [])]]
    for i, row in enumerate(sheet.rows):
        values = [cell.text if cell.value is None else cell.value for cell in row]
        rows.append([*values, *([keys[i]] if with_keys else [])])
    return csv_text(rows)


def as_latex(sheet: Sheet) -> str:
    """A booktabs tabular, with what it is in comments above it."""
    lines = [latex_comment(line) for line in (sheet.title, sheet.note) if line]
    return "\n".join([*lines, table_text(sheet.texts(), sheet.heads, "latex"), ""])
