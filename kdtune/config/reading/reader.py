"""Read YAML by the core schema of YAML 1.2, with bounds, and report every problem with its line.

- A date is text: `name: 2024-11-05` is a name. `yes`, `no`, `on` and `off` are text, `1:30` is text, `010` is ten.
- An alias is a copy, so `--set` changes one place. The expanded size of all aliases is bounded.
- Keys are text. Tags of other types, control characters and halves of surrogate pairs are refused.
- Whole numbers must fit into 64 bits, as the libraries that read them require.
"""

from __future__ import annotations

import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from kdtune.config.inherit import RawConfig
from kdtune.errors import ConfigError, Problem
from kdtune.parse import cut, parsing, printable, problem_of

#: Maximum size of a file, in bytes. The largest shipped file has 3 KB.
LARGEST_FILE = 256 * 1024
#: Maximum number of values in a file, each alias counted as a copy.
MOST_VALUES = 10_000
#: Maximum depth of nesting; a trial with a teacher of a teacher needs about ten levels.
DEEPEST = 40
#: Maximum absolute value of a whole number.
LARGEST_WHOLE = 2**63 - 1

Path_ = tuple[str | int, ...]

_CORE = "tag:yaml.org,2002:"
_TAGS = {f"{_CORE}{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")}
#: The core schema's resolution of plain scalars, https://yaml.org/spec/1.2.2/#103-core-schema.
_RESOLVED = [
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
]


class _Loader(yaml.SafeLoader):
    """Resolves plain scalars by the core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


def _whole(loader: _Loader, node: ScalarNode) -> int:
    """Read an int by the core schema; PyYAML would read 010 as eight and 1:30 as ninety."""
    text = node.value
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text if base == 10 else text[2:], base)


_Loader.add_constructor(f"{_CORE}int", _whole)
for _name, _pattern, _first in _RESOLVED:
    _Loader.add_implicit_resolver(f"{_CORE}{_name}", re.compile(_pattern), _first)
_Loader.add_implicit_resolver(f"{_CORE}merge", re.compile(r"^<<$"), ["<"])


def read_text(file: Path) -> str:
    """Return the text of a configuration file.

    Raises ConfigError where it cannot be read, is not a regular file, is too large or is not UTF-8.
    """
    with parsing(file, ConfigError):
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe without a writer would wait for ever
            raise ConfigError.at(printable(str(file)), "is not a regular file")
        if found.st_size > LARGEST_FILE:
            what = f"has {found.st_size:,} bytes, which is too large for a configuration"
            raise ConfigError.at(printable(str(file)), what, f"{LARGEST_FILE:,} at most")
        return file.read_bytes().decode("utf-8-sig")


def parse_file(text: str, file: Path) -> tuple[RawConfig, dict[str, str]]:
    """Return the mapping that `text` holds and the place (file:line) of each of its dotted paths.

    Raises ConfigError with all problems of the YAML itself.
    """
    where = printable(str(file))
    node = _compose(text, where)
    places: dict[str, str] = {}
    raw = _built(node, where, places)
    if not isinstance(raw, dict):
        raise ConfigError.at(where, f"must hold a mapping of keys, got {type(raw).__name__}")
    return raw, places


def parse_value(text: str, where: str) -> Any:
    """Return the value of a --set, given as YAML. Raises ConfigError with `where` as the place."""
    return _built(_compose(text, where, lines=False), where, None)


def dotted(path: Path_) -> str:
    return ".".join(str(part) for part in path)


# ---- from text to nodes ----------------------------------------------------------------------------------------------


def _compose(text: str, where: str, lines: bool = True) -> Node | None:
    """Return the root node of a text's only document. Raises ConfigError where it is too deep or too large."""
    try:
        if bad := _first_unfit(text, allowed="\t\n\r\x85"):
            raise ConfigError([_at(where, text.count("\n", 0, bad.start()) + 1 if lines else 0, _reason(bad[0]))])
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        if node is not None:
            _size(node, where, lines, {}, ())
        return node
    except ConfigError:
        raise
    except Exception as error:
        found = problem_of(where, error, "YAML")
        raise ConfigError([found if lines else Problem(where, found.what)]) from error


def _size(node: Node, where: str, lines: bool, known: dict[int, int], above: tuple[int, ...]) -> int:
    """Return how many values a node holds, each alias counted as a copy.

    Raises ConfigError where there are too many, or the node is nested too deeply or contains itself.
    """
    if id(node) in known:
        return known[id(node)]
    line = node.start_mark.line + 1 if lines else 0
    if id(node) in above:
        raise ConfigError([_at(where, line, "is an alias of a value that contains it")])
    if len(above) >= DEEPEST:
        raise ConfigError([_at(where, line, f"nests more than {DEEPEST} levels deep")])
    below: list[Node] = []
    if isinstance(node, MappingNode):
        below = [part for pair in node.value for part in pair]
    elif isinstance(node, SequenceNode):
        below = node.value
    known[id(node)] = size = 1 + sum(_size(part, where, lines, known, (*above, id(node))) for part in below)
    if size > MOST_VALUES:
        raise ConfigError([_at(where, line, f"holds more than {MOST_VALUES:,} values with its aliases expanded")])
    return size


# ---- from nodes to values --------------------------------------------------------------------------------------------


def _built(node: Node | None, where: str, places: dict[str, str] | None) -> Any:
    """Return the value of a node. Raises ConfigError with all problems in it."""
    if node is None:
        return None
    loader, problems = _Loader(""), list[Problem]()

    def refuse(node: Node, path: Path_, what: str, allowed: str = "") -> None:
        line = node.start_mark.line + 1 if places is not None else 0
        problems.append(_at(where, line, f"{printable(dotted(path))}: {what}", allowed))

    def build(node: Node, path: Path_) -> Any:
        if places is not None and path:
            places.setdefault(dotted(path), f"{where}:{node.start_mark.line + 1}")
        if node.tag not in _TAGS:
            refuse(node, path, f"has the tag {printable(node.tag.removeprefix(_CORE))[:40]!r}", "no tag")
            return None
        if isinstance(node, MappingNode):
            return dict(entries(node, path))
        if isinstance(node, SequenceNode):
            return [build(part, (*path, i)) for i, part in enumerate(node.value)]
        try:
            value = loader.construct_object(node)
        except Exception as error:  # includes the errors of Python's int and float
            shown = printable(cut(node.value, 40))
            what = f"{shown!r} is not of type {node.tag.removeprefix(_CORE)}"
            if isinstance(error, ValueError) and len(node.value) > 1000:
                what = f"has too many digits: {what}"
            refuse(node, path, what)
            return None
        if (reason := _refused(value)) is not None:
            refuse(node, path, reason)
            return None
        return value

    def entries(node: MappingNode, path: Path_) -> Iterator[tuple[str, Any]]:
        keys = [key for key, _ in node.value if isinstance(key, ScalarNode)]
        names = [key.value for key in keys if key.tag != f"{_CORE}merge"]
        for twice in [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            refuse(node, (*path, twice), "is given twice")
        try:
            loader.flatten_mapping(node)
        except yaml.YAMLError as error:
            problems.append(problem_of(where, error, "YAML"))
            return
        values: dict[str, tuple[Node, Any]] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode) or key.tag != f"{_CORE}str":
                shown = printable(key.value)[:40] if isinstance(key, ScalarNode) else key.id
                refuse(key, path or ("a key",), f"keys must be text, got {shown}", "quote it")
            elif (reason := _refused(key.value)) is not None:
                refuse(key, path or ("a key",), f"a key {reason}")
            else:
                values[key.value] = key, value  # the mapping's own keys come after merged ones, and win
        for name, (_, value) in values.items():
            yield name, build(value, (*path, name))

    value = build(node, ())
    if problems:
        raise ConfigError(dict.fromkeys(problems))
    return value


def _refused(value: Any) -> str | None:
    """Return why a scalar cannot be kept in a record; None where it can."""
    if isinstance(value, int) and abs(value) > LARGEST_WHOLE:
        return f"a whole number of {len(str(value))} digits does not fit into 64 bits"
    return unfit(value) if isinstance(value, str) else None


def unfit(text: str) -> str | None:
    """Return why a text cannot be kept in records and tables (a control character, half a surrogate pair), or None."""
    bad = _first_unfit(text, allowed="\t\n\r")
    return None if bad is None else _reason(bad[0])


def _first_unfit(text: str, allowed: str) -> re.Match[str] | None:
    found = re.finditer(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", text)
    return next((bad for bad in found if bad[0] not in allowed), None)


def _reason(character: str) -> str:
    kind = "half of a surrogate pair" if unicodedata.category(character) == "Cs" else "a control character"
    return f"holds U+{ord(character):04X}, {kind}"


def _at(where: str, line: int, what: str, allowed: str = "") -> Problem:
    return Problem(f"{where}:{line}" if line else where, what.removeprefix(": "), allowed)
