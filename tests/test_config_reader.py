"""YAML by the core schema: an odd text means what a person expects, or is one problem with its line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from fuzzing import no_hang
from helpers import ROOT

from kdtune.cli import main
from kdtune.config.load import load_sweep, parse_sweep
from kdtune.config.reading.reader import LARGEST_FILE, parse_file, parse_value
from kdtune.errors import EXIT_USER_ERROR, ConfigError

QUICK = (ROOT / "sweeps" / "lambda_tau.yaml").read_text(encoding="utf-8")
FILE = Path("sweep.yaml")


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        parse_file(text, FILE)
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-11-05", "2024-11-05"),
        ("2001-99-99", "2001-99-99"),
        ("0x_", "0x_"),
        ("0x1F", 31),
        ("0o17", 15),
        ("010", 10),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("1e-3", 1e-3),
        ("1.", 1.0),
        ("no", "no"),
        ("on", "on"),
        ("True", True),
        ("~", None),
        ("", None),
        (".5", 0.5),
        (str(2**63 - 1), 2**63 - 1),
    ],
)
def test_a_scalar_is_what_yaml_1_2_says(text: str, value: object) -> None:
    found = parse_value(text, "--set x")
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\nb: !!float foo", 2, "'foo' is not of type float"),
        ("a: 1\nb: !!timestamp x", 2, "has the tag 'timestamp'"),
        ("a: 1\nb: !!python/object:os.system x", 2, "has the tag"),
        ("a: " + "9" * 5000, 1, "too many digits"),
        (f"a: 1\n\nb: {2**63}", 3, "does not fit into 64 bits"),
        ('a: "\\ud800"', 1, "half of a surrogate pair"),
        ('a:\n - "x\\0"', 2, "U+0000, a control character"),
        ("a: 1\nb: \x00", 2, "U+0000, a control character"),
        ("a: [1\nb: 2", 2, "is not YAML"),
        ("a: 1\n1: 2", 2, "keys must be text, got 1"),
        ("a: 1\n[x]: 2", 2, "keys must be text"),
        ("a: 1\na: 2", 1, "a: is given twice"),
        ("a: &x [*x]", 1, "is an alias of a value that contains it"),
        ("a: " + "[" * 60 + "]" * 60, 1, "nests more than"),
        ("- 1", 0, "must hold a mapping of keys, got list"),
        ("", 0, "must hold a mapping of keys, got NoneType"),
        ("a: 1\n---\nb: 2", 2, "is not YAML"),
    ],
)
def test_what_cannot_be_read_is_one_problem_with_its_line(text: str, line: int, reason: str) -> None:
    said = refusal(text)
    assert reason in said
    assert f"sweep.yaml:{line}: " in said if line else "sweep.yaml: " in said


def test_every_problem_is_told_at_once() -> None:
    said = refusal("a: !!int x\nb: !!float y\n3: 1\n")
    assert [f"sweep.yaml:{line}:" in said for line in (1, 2, 3)] == [True] * 3


def test_aliases_are_copies_and_what_they_expand_to_is_bounded() -> None:
    raw, _ = parse_file("a: &x {k: 1}\nb: *x\nc: {<<: *x, l: 2}\n", FILE)
    raw["a"]["k"] = 5
    assert raw == {"a": {"k": 5}, "b": {"k": 1}, "c": {"k": 1, "l": 2}}
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    assert "aliases expanded" in refusal(bomb)


def test_a_deep_file_ends_at_once() -> None:
    assert "is not YAML" in (said := refusal("a: " + "[" * 20_000)) or "deep" in said


def test_a_date_is_a_name() -> None:
    assert parse_sweep(QUICK.replace("name: lambda_tau", "name: 2024-11-05"), FILE).name == "2024-11-05"


@pytest.mark.parametrize(
    ("was", "now", "place"),
    [
        ("  blocks:", "  exclude: [{teacher: r21d, data.fraction: 0.25}]\n  blocks:", "search.exclude.0.teacher"),
        ("lambda: {log: [0.2, 5.0]}", "lambda: {log: [0.2, 5.0], when: {teacher: r21d}}", "search.space.lambda.when"),
        ("name: lambda_tau", f"name: {'x' * 300}", "name"),
        ("name: lambda_tau", "name: ../x", "name"),
        ("  candidates: 3", f"  candidates: {10**6}", "search.candidates"),
        ("tau: {range: [1.0, 8.0]}", "tau: {range: [-1.0e+308, 1.0e+308]}", "search.space.tau.range"),
        ("resources: {cpu: 1, gpu: 0}", "resources: {cpu: 1, gpu: 2}", "resources.gpu"),
    ],
)
def test_a_value_beyond_what_anything_bears_is_refused(was: str, now: str, place: str) -> None:
    assert was in QUICK
    with pytest.raises(ConfigError) as refused:
        parse_sweep(QUICK.replace(was, now), FILE)
    assert place in str(refused.value)
    assert "sweep.yaml:" in str(refused.value)


def test_exclude_without_that_parameter_in_the_space() -> None:
    space = "    teacher: [c3d, r3d]"
    assert space in QUICK
    exclude = "  exclude: [{teacher: r3d, data.fraction: 0.25}]\n  blocks:"
    with pytest.raises(ConfigError, match="must name blocks and at most one choice of the space"):
        parse_sweep(QUICK.replace(space, "").replace("  blocks:", exclude), FILE)


@pytest.mark.parametrize(
    ("blocks", "space", "said"),
    [
        (f"{{subset_seed: {list(range(205))}, student.width: {list(range(4, 1004))}}}", None, "205,000 combinations"),
        (None, f"{{student.width: {list(range(4, 974))}, optimizer.patience: {list(range(1000))}}}", "970,000"),
    ],
)
def test_a_huge_search_says_its_size_before_it_is_made(blocks: str | None, space: str | None, said: str) -> None:
    lines = [line for line in QUICK.splitlines() if not line.startswith(("prune", "  candidates", "  startup"))]
    form, _ = parse_file("\n".join(lines), FILE)
    if blocks is not None:
        form["search"] |= {"blocks": yaml.safe_load(blocks.replace("subset_seed", "data.subset_seed")), "candidates": 1}
    else:
        form["search"] |= {"space": yaml.safe_load(space or ""), "sampler": "grid", "blocks": {}}
    text = yaml.safe_dump(form)
    with no_hang(), pytest.raises(ConfigError, match=said):
        parse_sweep(text, FILE)


def test_a_named_file_is_read_or_refused_whatever_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reading never waits for a writer, and always ends."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large.yaml").write_text("a: 1\n" * LARGEST_FILE)
    (tmp_path / "latin.yaml").write_bytes("name: é\n".encode("latin-1"))
    (tmp_path / "utf16.yaml").write_bytes("name: x\n".encode("utf-16"))
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    names = [
        "pipe",
        ".",
        "large.yaml",
        "latin.yaml",
        "utf16.yaml",
        "empty.yaml",
        "loop.yaml",
        "missing.yaml",
        "x" * 300,
    ]
    for name in [*names, "/dev/zero", "/dev/null", "a\0b", "a\nb", "\udcff"]:
        for command in (["plan"], ["sweep", "--dry-run"], ["train"], ["data", "prepare"]):
            code = main([*command, str(tmp_path / name), "--store", str(tmp_path / "runs")])
            said = capsys.readouterr().err
            assert (code, said.count("kdtune: 1 problem\n"), said.count("\n")) == (EXIT_USER_ERROR, 1, 2), (name, said)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "bom.yaml"
    file.write_text(QUICK, encoding="utf-8-sig")
    assert load_sweep(file) == parse_sweep(QUICK, FILE)


def test_set_does_not_replace_what_is_no_section() -> None:
    sets = ["objective.metric=top1", "search.sampler.x.y=1", "name.x=1", "search.space.tau.range=[1.0, 2.0]"]
    text = QUICK.replace("objective: {metric: knn, ", "objective: [{metric: knn}]  # {")
    with pytest.raises(ConfigError) as refused:
        parse_sweep(text, FILE, sets)
    said = str(refused.value)
    assert [f"--set {text}" in said for text in sets] == [True, True, True, False]


def test_trials_within_trials_are_bounded() -> None:
    nested = "{epochs: 1}"
    for n in range(6):
        nested = f"{{start: &a{n} {nested}, teacher: *a{n}}}"
    form, _ = parse_file(QUICK, FILE)
    form["trial"]["start"] = parse_value(nested, "start")
    with pytest.raises(ConfigError, match="has 127 trials as teacher or start of another"):
        parse_sweep(yaml.safe_dump(form, sort_keys=False), FILE)


def test_a_message_is_readable_whatever_it_repeats() -> None:
    form, _ = parse_file(QUICK, FILE)
    form["prune"] = {"at": ["9" * 5000]}
    form |= {f"unknown{n}" + "n" * 600: 1 for n in range(1000)}
    with no_hang(), pytest.raises(ConfigError) as refused:
        parse_sweep(yaml.safe_dump(form, sort_keys=False), FILE)
    assert all(len(str(problem)) < 4000 for problem in refused.value.problems)
    assert len(refused.value.problems) == 101
    assert "has 901 more problems" in str(refused.value)
