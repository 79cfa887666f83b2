"""A report as one self-contained HTML page and as Markdown. The page loads nothing from another host."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kdtune.report.plots import Plot
from kdtune.tables import Table, render
from kdtune.tables.escape import markdown_cell, markdown_text


@dataclass(frozen=True)
class Heading:
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph, in which `code` stands between backticks."""

    text: str
    kind: Literal["", "answer", "warning"] = ""
    """How the paragraph stands out."""


@dataclass(frozen=True)
class Points:
    """A list of paragraphs."""

    texts: Sequence[str]


Part = Heading | Text | Points | Table | Plot


def as_page(title: str, parts: Sequence[Part]) -> str:
    """Return the HTML page."""
    from kdtune.tables.html import environment  # Jinja2 is imported only for pages

    templates = environment("kdtune.report", inline=_inline, slug=_slug)
    named = [(type(part).__name__, part) for part in parts]
    return templates.get_template("page.html").render(title=title, parts=named)


def as_text(title: str, parts: Sequence[Part]) -> str:
    """Return the same in Markdown. Plots are files beside it."""
    return "\n\n".join([f"# {markdown_text(title)}", *map(_markdown, parts)]) + "\n"


def _markdown(part: Part) -> str:
    match part:
        case Heading(text):
            return f"## {markdown_text(text)}"
        case Text(text, kind):
            return f"> {markdown_text(text)}" if kind else markdown_text(text)
        case Points(texts):
            return "\n".join(f"- {markdown_text(text)}" for text in texts)
        case Table():
            return render(part, "markdown")
        case Plot(name, caption):
            return f"![{markdown_cell(caption)}](plots/{name}.svg)"


def _inline(text: str) -> str:
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text)))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
