"""Escape texts of users and libraries for CSV, Markdown and LaTeX, so that each form shows them as text.

Names of sweeps, teachers, stages and classes, a sweep's question and error messages may contain anything. A spreadsheet
that opens a CSV file computes what begins with `=`, a browser renders markup in Markdown, and LaTeX runs commands.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

from kdtune.parse import printable

# ---- CSV -------------------------------------------------------------------------------------------------------------

#: Characters that begin a formula in a spreadsheet, in both widths.
_FORMULA = tuple("=+-@＝＋－＠")
_FIGURE = r"[+−-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?%?"
#: A number or an interval of two, which is no formula whatever its sign.
_FIGURES = re.compile(rf"{_FIGURE}(?: … {_FIGURE})?")


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV, one line each, in which no text is a formula."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[csv_cell(value) for value in row] for row in rows])
    return text.getvalue()


def csv_cell(value: object) -> object:
    """Return a cell's value, with an apostrophe before a text that a spreadsheet would compute."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) and not _FIGURES.fullmatch(text) else text


# ---- Markdown --------------------------------------------------------------------------------------------------------

#: Punctuation that makes emphasis, code, links, images, tables or formulas; `_` only at the edge of a word.
_MARKS = re.compile(r"[\\`*\[\]|~$@]|(?<!\w)_|_(?!\w)|(?<=\w):(?=//)|(?<=www)\.", re.IGNORECASE)
#: Code as messages write it: between single backticks.
_CODE = re.compile(r"((?<!`)`[^`]+`(?!`))")
#: Characters that begin a heading, a quotation or a list.
_BEGINS = re.compile(r"\A\s*(?:[#>+=-]|\d{1,9}(?=[.)]))")


def markdown_cell(text: str) -> str:
    """Return a text without markup, for a cell of a table."""
    text = _MARKS.sub(lambda found: f"\\{found[0]}", printable(text))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_text(text: str) -> str:
    """Return a paragraph whose only markup is `code` between backticks."""
    parts = _CODE.split(" ".join(text.split()))
    shown = [printable(part) if i % 2 else markdown_cell(part) for i, part in enumerate(parts)]
    return _BEGINS.sub(lambda found: _escaped_last(found[0]), "".join(shown), count=1) if shown[0] else "".join(shown)


def _escaped_last(text: str) -> str:
    """Escape the last character, or the full stop that follows if it is a digit: digits cannot be escaped."""
    return f"{text[:-1]}\\{text[-1]}" if not text[-1].isdigit() else f"{text}\\"


# ---- LaTeX -----------------------------------------------------------------------------------------------------------

#: Characters that LaTeX reads as commands, and signs that it writes as commands. After `\\` a star or a bracket would
#: belong to the end of the line before.
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
    """Return a text without commands."""
    shown = "".join(LATEX.get(character, character) for character in printable(text))
    return re.sub(r"-(?=-)", "-{}", shown)  # two hyphens would become a dash


def latex_comment(text: str) -> str:
    """Return a text as a comment of one line."""
    return f"% {printable(text)}"
