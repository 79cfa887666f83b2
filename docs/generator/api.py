"""The reference of the Python API: the public names of `kdtune`, from their signatures and docstrings."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import kdtune
from kdtune.api.training import train

#: Public configuration objects, whose fields are in the configuration reference.
CONFIGURATION = ("SweepConfig", "TrialConfig")


def page() -> str:
    """Return the generated part of the page as Markdown."""
    parts = []
    for name in kdtune.__all__:
        # `kdtune.train` is a package that can be called; its function has signature and docstring.
        item = train if name == "train" else getattr(kdtune, name)
        parts.append("\n\n".join(_class(name, item) if inspect.isclass(item) else _function(f"kdtune.{name}", item, 2)))
    return "\n\n".join(parts) + "\n"


def _class(name: str, item: type) -> Iterator[str]:
    yield f"## kdtune.{name}"
    if name in CONFIGURATION:
        yield markdown(inspect.getdoc(item))
        yield "Its fields are in the [configuration reference](configuration.md)."
        return
    if not issubclass(item, Exception):
        yield _code(f"class {name}{_signature(item)}")
    else:
        yield f"A kind of `{item.__bases__[0].__name__}`."
    yield markdown(inspect.getdoc(item))
    if not issubclass(item, Exception) and (made := inspect.getdoc(item.__init__)) and item.__init__ is not object:
        yield markdown(made) if "__init__" in vars(item) and not made.startswith("Initialize self") else ""
    for own, value in vars(item).items():
        if own.startswith("_"):
            continue
        if isinstance(value, property | cached_property):
            yield f"### {name}.{own}"
            yield markdown(inspect.getdoc(value))
        elif inspect.isfunction(value):
            yield from _function(own, value, 3, f"{name}.{own}")


def _function(name: str, item: Any, level: int, title: str = "") -> Iterator[str]:
    yield f"{'#' * level} {title or name}"
    yield _code(f"{name}{_signature(item)}")
    yield markdown(inspect.getdoc(item))


def _signature(item: Any) -> str:
    """Return the arguments of a function or class without `self`, one in a line where they are long."""
    found = inspect.signature(item)
    values = [value for name, value in found.parameters.items() if name != "self"]
    arguments: list[str] = []
    for value in values:
        if value.kind is value.KEYWORD_ONLY and "*" not in arguments:
            arguments.append("*")
        annotation = "" if value.annotation is value.empty else f": {value.annotation}"
        arguments.append(value.name + annotation + ("" if value.default is value.empty else f" = {value.default!r}"))
    returns = "" if found.return_annotation in (found.empty, None, "None") else f" -> {found.return_annotation}"
    text = f"({', '.join(arguments)}){returns}"
    return text if len(text) <= 90 else "(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){returns}"


def _code(text: str, language: str = "python") -> str:
    return f"```{language}\n{text}\n```"


def markdown(doc: str | None) -> str:
    """Return a docstring as Markdown: examples as blocks, `Args:` and `Columns:` as lists."""
    return "\n\n".join(_paragraph(part) for part in re.split(r"\n{2,}", (doc or "").strip()))


def _escaped(text: str) -> str:
    """Return text in which `<` outside of code begins no HTML tag."""
    return "`".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(text.split("`")))


def _paragraph(text: str) -> str:
    if text.startswith(">>>"):
        return _code(text, "pycon")
    text = _escaped(text)
    head, _, rest = text.partition("\n")
    if not (head.endswith(":") and rest.startswith("    ")):
        return text
    # A line with less indentation than the one before it begins another paragraph, as `Raises …` after arguments may.
    items: list[str] = []
    for line in textwrap.dedent(rest).splitlines():
        if line.startswith(" ") and items:
            items[-1] += f" {line.strip()}"
        else:
            items.append(line)
    if head != "Args:":
        return f"{head} {' '.join(items)}"
    named = (item.partition(":") for item in items)
    return "\n".join(["Arguments:", "", *(f"- `{name}`:{what}" for name, _, what in named)])
