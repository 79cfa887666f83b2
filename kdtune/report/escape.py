"""Texts that users and libraries wrote, made safe for each form in which a table leaves: every form shows them as text.

Names of sweeps, teachers, stages and classes, a sweep's question, and what an error says may hold anything. Who reads a
CSV file may be a spreadsheet that computes what begins with `=`, who reads Markdown a browser, who reads a table LaTeX.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

from tabulate import tabulate

from kdtune.parse import printable

# ---- CSV -------------------------------------------------------------------------------------------------------------

#: What spreadsheets take for the beginning of a formula, in both widths.
_FORMULA = tuple("=+-@＝＋－＠")
_FIGURE = r"[+−-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?%?"
#: A number, or an interval of two: no formula, whatever its sign.
_FIGURES = re.compile(rf"{_FIGURE}(?: … {_FIGURE})?")


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV in which no text is a formula, and each row is a line."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[csv_cell(value) for value in row] for row in rows])
    return text.getvalue()


def csv_cell(value: object) -> object:
    """Return a cell's value: numbers as they are, a text that spreadsheets would compute behind an apostrophe."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) and not _FIGURES.fullmatch(text) else text


# ---- Markdown --------------------------------------------------------------------------------------------------------

#: Punctuation that makes emphasis, code, links, images, tables or formulas; `_` only where a word does not go on.
_MARKS = re.compile(r"[\\`*\[\]|~$@]|(?<!\w)_|_(?!\w)|(?<=\w):(?=//)|(?<=www)\.", re.IGNORECASE)
#: Code as messages write it; runs of backticks are none.
_CODE = re.compile(r"((?<!`)`[^`]+`(?!`))")
#: What would begin a heading, a quotation or a list.
_BEGINS = re.compile(r"\A\s*(?:[#>+=-]|\d{1,9}(?=[.)]))")


def markdown_cell(text: str) -> str:
    """Return a text for a cell of a table, where nothing of it is markup."""
    text = _MARKS.sub(lambda found: f"\\{found[0]}", printable(text))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_text(text: str) -> str:
    """Return a paragraph in which nothing but `code` between backticks is markup."""
    parts = _CODE.split(" ".join(text.split()))
    shown = [printable(part) if i % 2 else markdown_cell(part) for i, part in enumerate(parts)]
    return _BEGINS.sub(lambda found: _escaped_last(found[0]), "".join(shown), count=1) if shown[0] else "".join(shown)


def _escaped_last(text: str) -> str:
    """`1` before a full stop has its stop escaped instead: a digit cannot be."""
    return f"{text[:-1]}\\{text[-1]}" if not text[-1].isdigit() else f"{text}\\"


# ---- LaTeX -----------------------------------------------------------------------------------------------------------

#: Characters that LaTeX takes for commands, and signs that it wants as commands. Behind `\\` a star or a bracket would
#: be the end of the line before.
LATEX = {
    **{special: f"\\{special}" for special in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "λ": r"$\lambda$",
    "τ": r"$\tau$",
    "α": r"$\alpha$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "–": r"\textendash{}",
    "…": r"\ldots{}",
    "≥": r"$\geq$",
    "·": r"$\cdot$",
    "→": r"$\rightarrow$",
}


def latex_text(text: str) -> str:
    """Return a text in which nothing is a command."""
    shown = "".join(LATEX.get(character, character) for character in printable(text))
    return re.sub(r"-(?=-)", "-{}", shown)  # else two hyphens become a dash


def latex_comment(text: str) -> str:
    """Return a text as one line of comment."""
    return f"% {printable(text)}"


# ---- tables ----------------------------------------------------------------------------------------------------------

#: The forms of a table as people read it.
FORMS = ("table", "markdown", "latex")


def table_text(rows: Sequence[Sequence[str]], heads: Sequence[str], form: str) -> str:
    """Return a table in one of FORMS; each row takes one line, each cell has the text that was given."""
    if form == "latex":
        return _latex_table(rows, heads)
    cell = markdown_cell if form == "markdown" else printable
    style = "github" if form == "markdown" else "simple"
    shown = [[cell(text) for text in row] for row in rows]
    return tabulate(
        shown,
        [cell(head) for head in heads],
        tablefmt=style,
        disable_numparse=True,
        colalign=["left"] * len(heads) if rows else None,
    )


def title_text(text: str, form: str) -> str:
    """Return what stands above a table in one of FORMS."""
    match form:
        case "markdown":
            return f"**{markdown_text(text)}**\n"
        case "latex":
            return latex_comment(text)
        case _:
            return printable(text)


def _latex_table(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> str:
    """A booktabs tabular."""
    lines = [[latex_text(text) for text in row] for row in (heads, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    first, *rest = (
        f" {' & '.join(text.ljust(width) for text, width in zip(line, widths, strict=True))} \\\\" for line in lines
    )
    begin = rf"\begin{{tabular}}{{{'l' * len(heads)}}}"
    return "\n".join([begin, r"\toprule", first, r"\midrule", *rest, r"\bottomrule", r"\end{tabular}"])
