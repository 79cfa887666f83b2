"""A report's parts as one self-contained HTML page and as Markdown: nothing of it is asked of another host."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from kdtune.report.escape import markdown_cell, markdown_text
from kdtune.report.plots import Plot
from kdtune.report.sheets import Sheet, as_html, as_markdown


@dataclass(frozen=True)
class Heading:
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph; `code` between backticks."""

    text: str
    kind: str = ""
    """`answer`, or `warning` for what must not be overlooked."""


@dataclass(frozen=True)
class Points:
    """A list."""

    texts: Sequence[str]


Part = Heading | Text | Points | Sheet | Plot

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
  max-width: 66rem; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem;
  border-bottom: 1px solid #ddd; padding-bottom: .2rem; }
p { margin: .5rem 0; } ul { padding-left: 1.3rem; } li { margin: .25rem 0; }
nav { font-size: .88rem; color: #555; margin: 1rem 0 0; } nav a { margin-right: .9rem; white-space: nowrap; }
.answer { font-size: 1.12rem; border-left: 4px solid #0072B2; background: #f2f7fb; padding: .7rem 1rem; }
.warning { border-left: 4px solid #D55E00; background: #fdf4ee; padding: .5rem 1rem; }
figure { margin: 1.4rem 0; } figcaption { font-weight: 600; font-size: .95rem; margin-bottom: .35rem; }
figure img { width: 100%; height: auto; } .note { font-size: .86rem; color: #555; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .6rem .22rem 0; text-align: left; white-space: nowrap; border-bottom: 1px solid #eee; }
th { border-bottom: 1.5px solid #888; } td.n { text-align: right; } td a { color: inherit; text-decoration: none;
  border-bottom: 1px dotted #999; } td a:hover { color: #0072B2; } tr:target td { background: #fff6d6; }
code { font: .86em ui-monospace, "DejaVu Sans Mono", monospace; background: #f4f4f4; padding: .05em .25em; }
summary { cursor: pointer; font-size: .88rem; color: #0072B2; margin: .4rem 0; }
"""


def as_page(title: str, parts: Sequence[Part]) -> str:
    """The HTML page."""
    links = [
        f'<a href="#{_slug(part.text)}">{html.escape(part.text)}</a>' for part in parts if isinstance(part, Heading)
    ]
    body = "\n".join(_html(part) for part in parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{html.escape(title)}</h1>\n<nav>{' '.join(links)}</nav>\n"
        f"{body}\n</body>\n</html>\n"
    )


def as_text(title: str, parts: Sequence[Part]) -> str:
    """The same in Markdown; plots are files beside it."""
    return "\n\n".join([f"# {markdown_text(title)}", *map(_markdown, parts)]) + "\n"


def _html(part: Part) -> str:
    match part:
        case Heading(text):
            return f'<h2 id="{_slug(text)}">{html.escape(text)}</h2>'
        case Text(text, kind):
            return f"<p{f' class={kind}' if kind else ''}>{_inline(text)}</p>"
        case Points(texts):
            return f"<ul>{''.join(f'<li>{_inline(text)}</li>' for text in texts)}</ul>"
        case Sheet():
            return as_html(part)
        case Plot(name, caption):
            said = html.escape(caption)
            image = f'<img src="{part.uri}" alt="{said}">'
            return f'<figure id="{name}">{image}<p class=note>{said}</p></figure>'


def _markdown(part: Part) -> str:
    match part:
        case Heading(text):
            return f"## {markdown_text(text)}"
        case Text(text, kind):
            return f"> {markdown_text(text)}" if kind else markdown_text(text)
        case Points(texts):
            return "\n".join(f"- {markdown_text(text)}" for text in texts)
        case Sheet():
            return as_markdown(part)
        case Plot(name, caption):
            return f"![{markdown_cell(caption)}](plots/{name}.svg)"


def _inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text, quote=False))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
