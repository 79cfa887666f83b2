"""Load a configuration from a YAML file and --set, or raise one error with all problems and their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from kdtune.config.checking.refit import refit_problems
from kdtune.config.checking.sweep import sweep_problems
from kdtune.config.inherit import NESTED, RawConfig
from kdtune.config.reading.reader import parse_file, parse_value, read_text, unfit
from kdtune.config.reading.validate import problems_of, unknown_path, validate
from kdtune.config.space import resolve, set_path, split_path
from kdtune.config.sweep import Block, SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import ConfigError, Problem
from kdtune.near import did_you_mean
from kdtune.parse import cut, printable, shortened

#: Maximum characters of a --set that a message repeats.
LONGEST_SHOWN = 120
#: Maximum number of trials nested in a file as teachers or starts. Each is checked with all that it inherits.
MOST_TRIALS = 20
#: Maximum number of problems listed, and maximum characters of a problem's texts.
MOST_PROBLEMS, LONGEST_WHAT, LONGEST_ALLOWED = 100, 500, 2500


def load_sweep(file: Path, sets: Sequence[str] = ()) -> SweepConfig:
    """Read and check a sweep file. Raises ConfigError with all its problems."""
    return parse_sweep(read_text(file), file, sets)


def parse_sweep(text: str, file: Path, sets: Sequence[str] = ()) -> SweepConfig:
    """Check a sweep file whose text has been read from `file`. Raises ConfigError with all its problems."""
    raw, places = parse_file(text, file)
    return _checked_sweep(raw, file, places, _apply_sets(raw, sets, SweepConfig, places))


def check_sweep(raw: Mapping[str, Any], sets: Sequence[str] = ()) -> SweepConfig:
    """Return the sweep of a mapping, as a sweep file holds it. Raises ConfigError with all its problems."""
    copied, places = deepcopy(dict(raw)), dict[str, str]()
    problems = _apply_sets(copied, sets, SweepConfig, places)
    return _checked_sweep(copied, Path("sweep"), places, problems)


def _checked_sweep(raw: RawConfig, file: Path, places: Mapping[str, str], problems: list[Problem]) -> SweepConfig:
    """Return the sweep that `raw` holds. Raises ConfigError with its problems and those that are known already."""
    _refuse_many_trials(raw, file)
    sweep, more = validate(SweepConfig, raw)
    problems = problems + more
    if sweep is not None:
        # What was left out as wrong has its default in `sweep`: no second complaint about the same place.
        known = [problem.where for problem in problems]
        problems += [
            problem
            for problem in (*sweep_problems(sweep), *refit_problems(sweep))
            if not any(problem.where == place or problem.where.startswith(f"{place}.") for place in known)
        ]
    if problems or sweep is None:
        raise ConfigError(_placed(problems, file, places))
    return sweep


def load_trial(file: Path | None, sets: Sequence[str] = ()) -> TrialConfig:
    """Read one trial from a trial file, or from a sweep file's `trial` section; apply the --set values.

    Without a file, the --set values are applied to the defaults. Raises ConfigError with all problems.
    """
    raw, places = parse_file(read_text(file), file) if file is not None else ({}, {})
    if file is not None and "search" in raw:
        return _trial_of_sweep(raw, file, places, sets)
    return _checked_trial(raw, file, places, _apply_sets(raw, sets, TrialConfig, places))


def _trial_of_sweep(raw: RawConfig, file: Path, places: dict[str, str], sets: Sequence[str]) -> TrialConfig:
    """Return the trial of a sweep file, as a candidate with the values that --set gives to it.

    Each other --set changes the sweep file, of which the trial takes its teachers.
    """
    values, problems = _parse_sets(sets, SweepConfig)
    own = {path.removeprefix("trial."): value.value for path, value in values.items() if path.startswith("trial.")}
    rest = {path: value for path, value in values.items() if not path.startswith("trial.")}
    try:
        sweep = _checked_sweep(raw, file, places, _put(raw, rest, places))
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from error
    named = own.get("teacher")
    if named is not None and not (isinstance(named, str) and named in ("none", *sweep.teachers)):
        known = ["none", *sweep.teachers]
        near = did_you_mean(named, known) if isinstance(named, str) else ""
        problems.append(Problem("--set teacher", f"unknown teacher, got {shortened(named)}{near}", ", ".join(known)))
        del own["teacher"]
    try:
        trial = sweep.build(Block(0, {}), own, own.get("seed", sweep.trial.seed))
    except ValidationError as error:
        raise ConfigError([*problems, *problems_of(error, TrialConfig, "--set ")]) from error
    if problems:
        raise ConfigError(problems)
    return trial


def check_trial(raw: Mapping[str, Any]) -> TrialConfig:
    """Return the trial of a mapping, as a trial file holds it. Raises ConfigError with all its problems."""
    return _checked_trial(dict(raw), Path("trial"), {}, [])


def _checked_trial(
    raw: RawConfig, file: Path | None, places: Mapping[str, str], problems: list[Problem]
) -> TrialConfig:
    """Return the trial that `raw` holds. Raises ConfigError with its problems and those that are known already."""
    _refuse_many_trials(raw, file)
    trial, more = validate(TrialConfig, raw)
    if problems or more or trial is None:
        raise ConfigError(_placed(problems + more, file, places))
    return trial


def _refuse_many_trials(raw: Mapping[str, Any], file: Path | None) -> None:
    """Raise ConfigError where too many teachers and starts are nested in each other."""

    def trials(value: Any) -> int:
        parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
        return sum(trials(part) + (name in NESTED and isinstance(part, Mapping)) for name, part in parts)

    if (count := trials(raw)) > MOST_TRIALS:
        what = f"has {count} trials as teacher or start of another"
        raise ConfigError.at(printable(str(file or "--set")), what, f"{MOST_TRIALS} at most")


def _placed(problems: list[Problem], file: Path | None, places: Mapping[str, str]) -> list[Problem]:
    """Prefix each problem's path with its place in the file, or that of the nearest enclosing key in the file."""
    placed = []
    for problem in dict.fromkeys(problems):
        parts = problem.where.split(".")
        around = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
        place = next((places[path] for path in around if path in places), str(file or "--set"))
        where = problem.where if problem.where.startswith("--set") else f"{place}: {problem.where}"
        what, allowed = cut(problem.what, LONGEST_WHAT), cut(problem.allowed, LONGEST_ALLOWED)
        placed.append(Problem(cut(where, LONGEST_WHAT), what, allowed))
    if len(placed) > MOST_PROBLEMS:
        more = Problem(printable(str(file or "--set")), f"has {len(placed) - MOST_PROBLEMS:,} more problems")
        return [*placed[:MOST_PROBLEMS], more]
    return placed


# ---- --set -----------------------------------------------------------------------------------------------------------


class _SetValue(NamedTuple):
    value: Any
    place: str
    """The --set as it was given, for messages."""


def _parse_sets(sets: Sequence[str], model: type[BaseModel]) -> tuple[dict[str, _SetValue], list[Problem]]:
    """Return path in a file of `model` → value of every readable --set, and the problems of the others.

    The last --set of a path wins.
    """
    values: dict[str, _SetValue] = {}
    problems = []
    for text in sets:
        key, equals, value = text.partition("=")
        where = f"--set {printable(text[:LONGEST_SHOWN])}"
        if not equals or not key.strip():
            problems.append(Problem(where, "must read key=value"))
        elif (reason := unfit(key)) is not None:
            problems.append(Problem(where, f"the key {reason}"))
        elif (path := _set_path(key.strip(), model)) is None:
            others = list(SweepConfig.model_fields) if model is SweepConfig else []
            problems.append(unknown_path(where, key.strip(), "unknown key", others))
        else:
            try:
                values[path] = _SetValue(parse_value(value, where), where)
            except ConfigError as error:
                problems += error.problems
    return values, problems


def _set_path(key: str, model: type[BaseModel]) -> str | None:
    """Return the path that a --set's key means in a file of `model`; None for an unknown key.

    A path of a trial may be short (`lambda`) or whole, and begin with `trial.` or not, in a trial file, too.
    """
    path = resolve(key.removeprefix("trial."))
    if path.partition(".")[0] in TrialConfig.model_fields:
        return f"trial.{path}" if model is SweepConfig else path
    return key if model is SweepConfig and key.partition(".")[0] in SweepConfig.model_fields else None


def _apply_sets(raw: RawConfig, sets: Sequence[str], model: type[BaseModel], places: dict[str, str]) -> list[Problem]:
    """Put each --set into `raw`, note its place, and return the problems."""
    values, problems = _parse_sets(sets, model)
    return problems + _put(raw, values, places)


def _put(raw: RawConfig, values: Mapping[str, _SetValue], places: dict[str, str]) -> list[Problem]:
    """Put the values of --set into `raw` at their paths, note their places, and return the problems."""
    problems = []
    for path, (value, where) in values.items():
        if (blocking := _no_section(raw, path)) is not None:
            problems.append(Problem(where, f"{blocking} is not a section of the file", "a path of its sections"))
            continue
        set_path(raw, path, value)
        for inside in [place for place in places if place.startswith(f"{path}.")]:
            del places[inside]  # the lines of the value that is replaced
        places[path] = where
        above = path
        while (above := above.rpartition(".")[0]) and above not in places:
            places[above] = where
    return problems


def _no_section(raw: Mapping[str, Any], path: str) -> str | None:
    """Return the first part of a dotted path that holds a plain value instead of a section; None where none does."""
    parts, inside = split_path(path), raw
    for n, part in enumerate(parts[:-1], 1):
        below = inside.get(part)
        if not isinstance(below, dict):
            return None if below in (None, "none") else ".".join(parts[:n])
        inside = below
    return None
