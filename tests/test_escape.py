"""Hostile texts in every form of a table: a reader of that form finds the text, and nothing but text."""

from __future__ import annotations

import csv
import html
import io
import re

import pytest
from fuzzing import fuzz, fuzzed
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from kdtune.parse import printable
from kdtune.report.page import Heading, Points, Text, as_page, as_text
from kdtune.tables import FORMS, Cell, Column, Table, number, render
from kdtune.tables.escape import LATEX, csv_cell, csv_text, latex_comment, markdown_text

PIECES = [
    *"=+-@|`*_[]()!<>&#~$%^{}\\\"'\t\n\r\0 :./1aλ−…",
    *("<script>alert(1)</script>", "=cmd|'/C calc'!A0", "&lt;", "http://evil.org", "www.evil.org", "![x](http://e)"),
    *("\\end{tabular}", "\\input{/etc/passwd}", "% ", "\u2028", "\u202e", "\x1b[31m", "\ud800", "```", "|---|", "1. "),
]
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=8).map("".join)
ROWS = st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=4)
HEADS = ("a", "b_c", "λ|")
MARKDOWN = MarkdownIt("commonmark").enable("table")


def is_figure(text: str) -> bool:
    try:
        float(text.removesuffix("%").replace("−", "-"))
    except ValueError:
        return " … " in text and all(map(is_figure, text.split(" … ")))
    return True


def check_csv(rows: list[tuple[str, ...]]) -> None:
    """Assert that every cell comes back, and none begins like a formula."""
    text = csv_text([HEADS, *rows])
    back = list(csv.reader(io.StringIO(text)))
    assert len(text.splitlines()) == len(back) == 1 + len(rows)
    for row, given in zip(back[1:], rows, strict=True):
        for cell, before in zip(row, given, strict=True):
            shown = printable(before)
            assert cell in (shown, f"'{shown}")
            assert cell.lstrip()[:1] not in set("=+-@") or is_figure(cell)


@fuzzed
def test_csv(examples: int) -> None:
    fuzz(check_csv, ROWS, examples=examples)


@pytest.mark.parametrize("text", ["-5.0", "+16.7", "−1.0 … +9.4", "-2", "+3e-05", "12%", "-.5", "0.125"])
def test_figures_stay_figures_in_csv(text: str) -> None:
    assert csv_cell(text) == text


@pytest.mark.parametrize("text", ["=1+1", "-1+1", "+A1", "@SUM(A1)", "-2+3+cmd|' /C calc'!A0", " =1", "＝1"])
def test_formulas_become_texts_in_csv(text: str) -> None:
    assert csv_cell(text) == f"'{text}"
    assert csv_cell(-1.5) == -1.5


def plain(tokens: list) -> str:
    """Return the text of inline tokens, each of which must be text, an escape or an entity."""
    assert {token.type for token in tokens} <= {"text", "text_special"}, [token.type for token in tokens]
    return "".join(token.content for token in tokens)


def check_markdown(rows: list[tuple[str, ...]]) -> None:
    """Assert that a parser finds one table with as many cells, each with the given text and no markup."""
    tokens = MARKDOWN.parse(render(Table.of(HEADS, rows), "markdown"))
    assert [token.type for token in tokens].count("table_open") == 1
    assert tokens[-1].type == "table_close"
    cells = [plain(token.children or []) for token in tokens if token.type == "inline"]
    assert cells == [printable(text).strip() for row in (HEADS, *rows) for text in row]


@fuzzed
def test_markdown_tables(examples: int) -> None:
    fuzz(check_markdown, ROWS, examples=examples)


def check_paragraph(text: str) -> None:
    """Assert that a parser finds one paragraph of text and code."""
    tokens = MARKDOWN.parse(markdown_text(text))
    kinds = [token.type for token in tokens]
    assert kinds in ([], ["paragraph_open", "inline", "paragraph_close"]), kinds
    inline = [child for token in tokens for child in token.children or []]
    assert {token.type for token in inline} <= {"text", "text_special", "code_inline"}
    found = "".join(token.content for token in inline)
    assert "".join(found.split()) == "".join(
        printable(" ".join(re.sub(r"(?<!`)`([^`]+)`(?!`)", r"\1", text).split())).split()
    )


@fuzzed
def test_markdown_paragraphs(examples: int) -> None:
    fuzz(check_paragraph, TEXTS, examples=examples)


@pytest.mark.parametrize("text", ["@`=`", "a `- b`", "`# c`", "# a", "1. x", "- a", "=", "a - b"])
def test_only_what_begins_a_paragraph_is_escaped_there(text: str) -> None:
    check_paragraph(text)


UNESCAPED = {command: sign for sign, command in LATEX.items()}
COMMAND = re.compile("|".join(re.escape(command) for command in sorted(UNESCAPED, key=len, reverse=True)))


def check_latex(rows: list[tuple[str, ...]]) -> None:
    """Assert that each line has its cells and ends as a row, unescaped cells are the text, and no special remains."""
    begin, top, head, rule, *body, bottom, end = render(Table.of(HEADS, rows), "latex").split("\n")
    assert (begin, end) == ("\\begin{tabular}{lll}", "\\end{tabular}")
    assert (top, rule, bottom) == ("\\toprule", "\\midrule", "\\bottomrule")
    for line, row in zip([head, *body], [HEADS, *rows], strict=True):
        assert line.endswith(" \\\\")
        cells = re.split(r"(?<!\\)&", line.removesuffix(" \\\\"))
        for cell, text in zip(cells, row, strict=True):
            cell = cell.replace("-{}", "-")
            assert not set(COMMAND.sub("", cell)) & set("\\&%$#_{}~^<>|[]*")
            assert COMMAND.sub(lambda found: UNESCAPED[found[0]], cell).strip() == printable(text).strip()
    assert "\n" not in latex_comment(rows[0][0])


@fuzzed
def test_latex(examples: int) -> None:
    fuzz(check_latex, ROWS, examples=examples)


def check_table(title: str, rows: list[tuple[str, ...]]) -> None:
    """Assert all forms of a table with emphasis, links and a note, and the page around it."""
    cells = [[Cell(first, strong=True), *map(Cell, rest)] for first, *rest in rows]
    columns = [Column(HEADS[0]), *map(number, HEADS[1:])]
    table = Table(columns, cells, title, [title], name="<s>", keys=[['<k">']] * len(rows))
    parts = [Heading(title), Text(title, "answer"), Points([title]), table]
    page = render(table, "html") + as_page(title, parts, {'<k">': title})
    assert "<script>alert" not in page
    assert re.findall(r"<(?:img|input|a href=\"http)", page) == []
    assert '<k">' not in page
    assert "<s>" not in page
    assert len(list(csv.reader(io.StringIO(render(table, "csv"))))) == 1 + len(rows)
    assert all(line.startswith("% ") for line in render(table, "latex").split("\n")[: 2 if title else 0])
    for text in (render(table, "markdown"), as_text(title, parts)):
        tokens = MARKDOWN.parse(text)
        inline = {child.type for token in tokens for child in token.children or []}
        assert {token.type for token in tokens if token.type.startswith("html")} == set()
        assert inline <= {"text", "text_special", "code_inline", "strong_open", "strong_close", "softbreak"}


@fuzzed
def test_tables_and_pages(examples: int) -> None:
    fuzz(check_table, TEXTS, ROWS, examples=examples)


def test_titles_are_one_line() -> None:
    def title(text: str, form: str) -> str:
        return render(Table.of(["a"], [["b"]], text), form).split("\n")[0]

    assert title("a\n% b", "latex") == "% a\\n% b"
    assert title("a\n|b", "text") == "a\\n|b"
    assert html.unescape(title("<b>`x`\n", "markdown")) == "**<b>`x`**"


def test_alignment_emphasis_and_names_in_every_form() -> None:
    table = Table.of(["a", number("b", "b_s"), "a"], [["x", Cell("1.5", 1.4999, strong=True), "y"]], "t", "n")
    shown = {form: render(table, form) for form in FORMS}
    assert shown["text"].split("\n") == ["t", "a      b  a", "---  ---  ---", "x    1.5  y", "n"]
    assert shown["csv"] == "a,b_s,a (2)\nx,1.4999,y"
    assert "**1.5**" in shown["markdown"]
    assert "{lrl}" in shown["latex"]
    assert r"\textbf{1.5}" in shown["latex"]
    assert '<td class=n data-value="1.4999"><strong>1.5</strong></td>' in shown["html"]
