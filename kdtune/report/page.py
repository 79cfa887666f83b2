"""A report as one self-contained HTML page and as Markdown.

The page loads nothing from another host, and no script but its own runs in it, whatever its texts contain. Without
that script it shows the same figures.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from importlib.resources import files
from typing import Literal

from kdtune.parse import printable
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
    kind: Literal["", "answer", "warning", "note"] = ""
    """How the paragraph stands out."""


@dataclass(frozen=True)
class Points:
    """A list of paragraphs."""

    texts: Sequence[str]


Part = Heading | Text | Points | Table | Plot


#: What an SVG file needs and an element of a page does not: comments, metadata, a style for the whole document.
_FILE_ONLY = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)
#: The name of a part of an SVG, and references to it.
_PART = re.compile(r'(<[^<>]* id="|href="#|url\(#)')
_MARKED = re.compile(r'<g class="(?:mark|base)" data-keys="([^"]*)">')


def as_page(title: str, parts: Sequence[Part], words: Mapping[str, str]) -> str:
    """Return the HTML page. `words`: a trial's keys, between spaces → its values, shown beside the pointer."""
    from kdtune.tables.html import environment  # Jinja2 is imported only for pages

    templates = environment("kdtune.report", inline=_inline, slug=_slug)
    script = (files("kdtune.report") / "templates" / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    named = [(type(part).__name__, _element(part, words) if isinstance(part, Plot) else part) for part in parts]
    return templates.get_template("page.html").render(title=title, parts=named, script=script, digest=digest)


def _element(plot: Plot, words: Mapping[str, str]) -> tuple[Plot, str]:
    """Return the plot and its SVG as an element of a page, with part names of its own and titles on its marks."""
    from markupsafe import Markup, escape

    def titled(found: re.Match[str]) -> str:
        text = words.get(unescape(found[1]))
        title = "" if text is None else f"<title>{escape(text)}</title>"
        return f"{found[0]}{title}"

    svg = _FILE_ONLY.sub("", plot.svg.decode())
    svg = _PART.sub(rf"\g<1>{plot.name}-", svg[svg.index("<svg ") :])
    head = f'<svg role="img" aria-label="{escape(printable(plot.caption))}" '
    return plot, Markup(_MARKED.sub(titled, svg.replace("<svg ", head, 1)))


def as_text(title: str, parts: Sequence[Part]) -> str:
    """Return the same in Markdown. Plots are files beside it."""
    return "\n\n".join([f"# {markdown_text(title)}", *map(_markdown, parts)]) + "\n"


def _markdown(part: Part) -> str:
    match part:
        case Heading(text):
            return f"## {markdown_text(text)}"
        case Text(text, kind):
            return f"> {markdown_text(text)}" if kind in ("answer", "warning") else markdown_text(text)
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
