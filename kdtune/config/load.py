"""From a YAML file and --set to a configuration, or to one error with every problem and its place."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kdtune.config.check import sweep_problems
from kdtune.config.search import OBJECTIVE_TAGS
from kdtune.config.space import all_paths, is_path, resolve, set_path
from kdtune.config.sweep import Block, SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import ConfigError, Problem

Model = TypeVar("Model", bound=BaseModel)
Path_ = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """YAML 1.2's floats: 1e-3 is a number, too."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def load_sweep(file: Path, sets: Sequence[str] = ()) -> SweepConfig:
    """Read and check a sweep file. Raises ConfigError with all its problems."""
    raw, places = _read(file)
    problems = _apply_sets(raw, sets, SweepConfig, places)
    sweep, more = _validate(SweepConfig, raw)
    problems += more
    if sweep is not None:
        # What was left out as wrong has its default in `sweep`: no second complaint about the same place.
        known = [problem.where for problem in problems]
        problems += [
            problem
            for problem in sweep_problems(sweep)
            if not any(problem.where == place or problem.where.startswith(f"{place}.") for place in known)
        ]
    if problems or sweep is None:
        raise ConfigError(_placed(problems, file, places))
    return sweep


def load_trial(file: Path | None, sets: Sequence[str] = ()) -> TrialConfig:
    """Read one trial: a trial file, or a sweep file, of which `trial` with the --set values is taken.

    Without a file the --set values say what differs from the defaults.
    """
    raw, places = _read(file) if file is not None else ({}, {})
    if file is not None and "search" in raw:
        sweep = load_sweep(file, [])
        values, problems = _parse_sets(sets)
        problems += _unknown_paths(values)
        if isinstance(values.get("teacher"), str) and values["teacher"] not in ("none", *sweep.teachers):
            allowed = ", ".join(["none", *sweep.teachers])
            problems.append(Problem("--set teacher", f"unknown teacher, got {values['teacher']!r}", allowed))
        if problems:
            raise ConfigError(problems)
        try:
            return sweep.build(Block(0, {}), values, values.get("seed", sweep.trial.seed))
        except ValidationError as error:
            raise ConfigError([_problem(e, TrialConfig, "--set ") for e in error.errors()]) from error
    problems = _apply_sets(raw, sets, TrialConfig, places)
    trial, more = _validate(TrialConfig, raw)
    if problems or more or trial is None:
        raise ConfigError(_placed(problems + more, file, places))
    return trial


def _read(file: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The file's mapping, and the place (file:line) of each of its dotted paths."""
    try:
        text = file.read_text()
        node = yaml.compose(text, Loader=_Loader)
        raw = yaml.load(text, Loader=_Loader)
    except OSError as error:
        raise ConfigError([Problem(str(file), f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(str(file), "is not a text file")]) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        raise ConfigError([Problem(where, f"is not YAML: {getattr(error, 'problem', error)}")]) from error
    if not isinstance(raw, dict):
        raise ConfigError([Problem(str(file), f"must hold a mapping of keys, got {type(raw).__name__}")])
    return raw, dict(_places(node, (), file))


def _places(node: Any, path: Path_, file: Path) -> Iterator[tuple[str, str]]:
    if path:
        yield _dotted(path), f"{file}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        twice = [_dotted((*path, key)) for key in dict.fromkeys(keys) if keys.count(key) > 1]
        if twice:
            where = f"{file}:{node.start_mark.line + 1}"
            raise ConfigError([Problem(f"{where}: {name}", "stands twice") for name in twice])
        for key, value in node.value:
            yield from _places(value, (*path, key.value), file)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield from _places(value, (*path, i), file)


def _dotted(path: Path_) -> str:
    return ".".join(str(part) for part in path)


def _placed(problems: list[Problem], file: Path | None, places: Mapping[str, str]) -> list[Problem]:
    """Put its place before each problem's path: its own, or the nearest one around it that the file has."""
    placed = []
    for problem in dict.fromkeys(problems):
        parts = problem.where.split(".")
        around = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
        place = next((places[path] for path in around if path in places), str(file or "--set"))
        where = problem.where if problem.where.startswith("--set") else f"{place}: {problem.where}"
        placed.append(Problem(where, problem.what, problem.allowed))
    return placed


# ---- --set -----------------------------------------------------------------------------------------------------------


def _parse_sets(sets: Sequence[str]) -> tuple[dict[str, Any], list[Problem]]:
    """Key → value of every --set that can be read; of two for one key the later one counts."""
    values: dict[str, Any] = {}
    problems = []
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            problems.append(Problem(f"--set {text}", "must read key=value"))
            continue
        try:
            values[key.strip()] = yaml.load(value, Loader=_Loader)
        except yaml.YAMLError:
            problems.append(Problem(f"--set {text}", "the value is not YAML"))
    return values, problems


def _apply_sets(
    raw: dict[str, Any], sets: Sequence[str], model: type[BaseModel], places: dict[str, str]
) -> list[Problem]:
    """Put each --set into `raw`. A path of the trial configuration goes to the sweep's `trial` section."""
    values, problems = _parse_sets(sets)
    for key, value in values.items():
        if model is SweepConfig and key.split(".")[0] in SweepConfig.model_fields:
            path = key
        elif is_path(key):
            path = f"trial.{resolve(key)}" if model is SweepConfig else resolve(key)
        else:
            problems += _unknown_paths({key: value})
            continue
        set_path(raw, path, value)
        places[path] = f"--set {key}={value}"
    return problems


def _unknown_paths(values: Mapping[str, Any]) -> list[Problem]:
    return [_unknown(f"--set {name}", name, all_paths()) for name in values if not is_path(name)]


def _unknown(where: str, name: str, allowed: Sequence[str]) -> Problem:
    """An unknown key, with the one that was probably meant."""
    close = difflib.get_close_matches(name, allowed, 1, 0.5)
    return Problem(where, f"unknown key{f', did you mean {close[0]}?' if close else ''}", ", ".join(allowed))


# ---- pydantic's errors in our words ----------------------------------------------------------------------------------


def _validate(model: type[Model], raw: dict[str, Any]) -> tuple[Model | None, list[Problem]]:
    """The model and every problem: what is wrong is left out and the rest looked at again, for rules across fields."""
    problems: list[Problem] = []
    rest = copy.deepcopy(raw)
    while True:
        try:
            return model.model_validate(rest), problems
        except ValidationError as error:
            found = error.errors()
            fresh = [p for p in (_problem(e, model) for e in found) if p not in problems]
            problems += fresh
            dropped = [_drop(rest, _in_file(e["loc"])) for e in found if e["type"] != "missing"]
            if not fresh or not any(dropped):
                return None, problems


def _in_file(loc: Path_) -> Path_:
    """The path without the names of pydantic's own alternatives."""
    return tuple(part for part in loc if loc[0] != "objective" or part not in OBJECTIVE_TAGS)


def _drop(raw: Any, loc: Path_) -> bool:
    """Take away the value at `loc`; where pydantic's path names a rule rather than a key, its nearest parent."""
    holders = [raw]
    for part in loc:
        inside = holders[-1]
        there = isinstance(inside, dict) and part in inside
        if not there and not (isinstance(inside, list) and isinstance(part, int) and part < len(inside)):
            break
        holders.append(inside[part])
    depth = len(holders) - 2
    while depth >= 0 and not isinstance(holders[depth], dict):
        depth -= 1
    if depth < 0:
        return False
    del holders[depth][loc[depth]]
    return True


def _problem(error: ErrorDetails, model: type[BaseModel], prefix: str = "") -> Problem:
    loc = _in_file(error["loc"])
    where = prefix + (_dotted(loc) or "the file")
    if error["type"] == "extra_forbidden":
        return _unknown(where, str(loc[-1]), _allowed_keys(model, loc[:-1]))
    if error["type"] == "missing":
        return Problem(where, "is missing")
    got = error["input"]
    shown = "" if isinstance(got, Mapping | BaseModel) or "but got" in error["msg"] else f", got {got!r}"
    message = error["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return Problem(where, f"{message}{shown}")


def _allowed_keys(model: Any, loc: Path_) -> list[str]:
    """The keys of the section at `loc`, following pydantic's fields through optional and dictionary types."""
    for part in loc:
        if isinstance(model, type) and issubclass(model, BaseModel):
            by_key = {field.alias or name: field for name, field in model.model_fields.items()}
            model = by_key[str(part)].annotation if str(part) in by_key else model
        else:
            model = _section_in(model)
    section = _section_in(model)
    return [field.alias or name for name, field in section.model_fields.items()] if section is not None else []


def _section_in(annotation: Any) -> Any:
    """The configuration section inside an annotation such as dict[str, Section] or Section | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _section_in(argument)
        if found is not None:
            return found
    return None
