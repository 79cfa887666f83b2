"""Any sweep file and any --set gives a usable configuration, or one error with all problems."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from fuzzing import fuzz, fuzzed
from helpers import ROOT
from hypothesis import strategies as st

from kdtune.config.key import trial_key
from kdtune.config.load import load_trial, parse_sweep
from kdtune.config.space import all_paths
from kdtune.config.sweep import SweepConfig
from kdtune.errors import ConfigError

Loaded = TypeVar("Loaded")
FILES = sorted((ROOT / "sweeps").glob("*.yaml"))

#: Scalars as people and editors write them, and as nobody should.
WORDS = """
2001-99-99 2024-11-05 0x_ 0x 0b2 0o9 1_000 1:30 010 1e999 -.inf .nan 1e-400 1e308 -1e308 0 -1 -0.0 yes no on off null ~
true False "" [] {} [[]] !mine* * &a *a ../x /etc/passwd a/b . .. - none c3d match test knn gmac teacher << = : | > % @
` { ] é {log:[0,1]} "\\ud800" "\\0" "\\x1b[2J" 9223372036854775808 -9223372036854775808 999999999999999999999999999999
"""
ODD = [
    *WORDS.split(),
    *("!!float foo", "!!int two", "!!timestamp x", "!!binary x", "!!python/object:os.system x", "!!set {a}", "? a"),
    *("9" * 5000, "1" + "0" * 400 + ".0", "a" * 300, "[" * 60 + "]" * 60, "{a: " * 60 + "1" + "}" * 60, "\t", "'", '"'),
    *("[1, 1.0, true]", "[null, 1]", "{int: [1, 1e3]}", "{range: [-1.0e+308, 1.0e+308]}", "{a: {b: 1}}", "{when: {}}"),
    *("{int: [-9223372036854775808, 9223372036854775807]}", "' '"),
]


@cache
def trees() -> list[Any]:
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES]


def paths(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(found for key, value in below for found in paths(value, (*path, key)))]


class Raw(str):
    """Text that is written to the file as it is."""


yaml.SafeDumper.add_representer(Raw, lambda dumper, text: dumper.represent_str(f"RAW{text.encode().hex()}RAW"))


def text_of(tree: Any) -> str:
    pieces = yaml.safe_dump(tree, sort_keys=False, width=10**6).split("RAW")
    return "".join(bytes.fromhex(p).decode() if i % 2 else p for i, p in enumerate(pieces))


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A shipped sweep file with some of its nodes replaced, removed, added or moved, and perhaps some bytes changed."""
    tree = json.loads(json.dumps(draw(st.sampled_from(trees()))))
    value = st.one_of(
        st.sampled_from(ODD).map(Raw),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.booleans(),
        st.none(),
        st.sampled_from(all_paths()),
        st.dictionaries(st.sampled_from(all_paths()), st.sampled_from(["none", 1, 0.5, "c3d"]), max_size=3),
    )
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(paths(tree)))
        if not path:
            continue
        holder = tree
        for part in path[:-1]:
            holder = holder[part]
        how = draw(st.sampled_from(["replace", "remove", "add", "move"]))
        if how == "remove":
            del holder[path[-1]]
        elif how == "add" and isinstance(holder, dict):
            key = draw(st.sampled_from([*all_paths(), *SweepConfig.model_fields]))
            holder[key] = draw(value)
        elif how == "move":
            holder[path[-1]] = draw(
                st.sampled_from([draw(value), {"exclude": draw(value)}, [draw(value), draw(value)]])
            )
        else:
            holder[path[-1]] = draw(value)
    text = text_of(tree)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from([*ODD, "\n", "  ", "- ", "\x00", "\ufeff", "# "])) + text[at:]
    return text


def found(load: Callable[[], Loaded]) -> Loaded | None:
    """Return what `load` returns; None if it refuses, with problems that each have a place and can be printed."""
    try:
        return load()
    except ConfigError as error:
        problems = error.problems
    assert problems
    assert all(problem.what and problem.where and str(problem).encode() for problem in problems)
    return None


def used(sweep: SweepConfig) -> None:
    """Do everything that a sweep does with its file before it trains, without the data."""
    from kdtune.plan.describe import described
    from kdtune.sweep.search import Search

    assert sweep.model_validate_json(sweep.model_dump_json(by_alias=True)) == sweep
    sweep.ledger.encode()
    "\n".join(described(sweep)).encode()
    for block in sweep.blocks()[:3]:
        for control in sweep.search.controls:
            trial_key(sweep.build(block, control, sweep.search.first_seeds[0]), lambda data: data.folder)
        search = Search(sweep, block)
        for _ in range(min(2, sweep.candidates(block))):
            values = search.ask()
            json.dumps(values, allow_nan=False).encode()


@fuzzed
def test_a_mutated_sweep_file_gives_a_sweep_that_can_be_used_or_one_error(examples: int) -> None:
    accepted = [0]

    def check(text: str) -> None:
        sweep = found(lambda: parse_sweep(text, Path("sweep.yaml")))
        if sweep is not None:
            accepted[0] += 1
            used(sweep)

    fuzz(check, mutated(), examples=examples)
    assert accepted[0], "no mutation was harmless: the test would see nothing of what is accepted"


def sets() -> st.SearchStrategy[str]:
    key = st.one_of(
        st.sampled_from(all_paths()), st.sampled_from(sorted(SweepConfig.model_fields)), st.text(max_size=6)
    )
    keys = st.one_of(key, st.tuples(key, key).map(".".join))
    value = st.one_of(st.sampled_from(ODD), st.text(max_size=10), st.floats().map(str), st.integers().map(str))
    whole = st.tuples(keys, value).map("=".join)
    return st.one_of(
        whole, st.text(max_size=12), st.binary(max_size=8).map(lambda b: b.decode("utf-8", "surrogateescape"))
    )


@fuzzed
@pytest.mark.parametrize("sweep", [True, False], ids=["sweep", "trial"])
def test_whatever_set_holds(sweep: bool, examples: int) -> None:
    file = ROOT / "sweeps" / "lambda_tau.yaml"
    text = file.read_text(encoding="utf-8")

    def check(values: list[str]) -> None:
        if sweep:
            changed = found(lambda: parse_sweep(text, file, values))
            if changed is not None:
                used(changed)
        else:
            trial = found(lambda: load_trial(file, values))
            if trial is not None:
                trial_key(trial, lambda data: data.folder).encode()

    fuzz(check, st.lists(sets(), min_size=1, max_size=3), examples=examples)


#: Numbers at which libraries round to nothing or overflow, and ordinary ones.
NUMBERS = [
    *(5e-324, 1e-300, 1e-9, 0.0, 0.1, 0.5, 1.0, 3.0, 1e9, 1e30, 1e100, 1e308, -1, 0, 1, 2, 4, 8, 64, 1024, 10_000_000),
    *(2**31, 2**32, 2**53, 2**63 - 1, -(2**63)),
]


@fuzzed
def test_a_number_is_refused_or_can_be_used_wherever_it_stands(examples: int) -> None:
    text = (ROOT / "sweeps" / "lambda_tau.yaml").read_text(encoding="utf-8")
    paths = [path for path in all_paths() if path not in ("imported", "stages")]
    own = ["search.candidates", "search.startup", "search.window", "search.seed", "stop.hours", "stop.target"]
    own += ["resources.cpu", "resources.memory", "resources.workers", "prune.keep", "prune.min_peers"]
    number = st.sampled_from(NUMBERS)
    space = st.tuples(st.sampled_from(["range", "log", "int", "int_log"]), number, number).map(
        lambda drawn: {drawn[0]: sorted(drawn[1:])}
    )
    one = st.one_of(
        st.tuples(st.sampled_from([*paths, *own]), number),
        st.tuples(st.just("augment.blur_sigma"), st.tuples(number, number).map(sorted)),
        st.tuples(st.just("search.space"), st.dictionaries(st.sampled_from(paths), space, min_size=1, max_size=3)),
        st.tuples(st.just("search.seeds"), st.lists(number, min_size=1, max_size=2)),
        st.tuples(st.just("search.sampler"), st.sampled_from(["tpe", "random", "qmc", "nsga2"])),
    )
    accepted = [0]

    def check(changes: list[tuple[str, Any]]) -> None:
        sets = [f"{path}={json.dumps(value)}" for path, value in changes]
        sweep = found(lambda: parse_sweep(text, Path("sweep.yaml"), sets))
        if sweep is not None:
            accepted[0] += 1
            used(sweep)

    fuzz(check, st.lists(one, min_size=1, max_size=2), examples=examples)
    assert accepted[0] > examples // 20
