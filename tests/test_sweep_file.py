"""Sweep files: --set, numbers, names, blocks, teachers, and every shipped file."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from helpers import ROOT, write_sweep

from kdtune.calling import pasteable
from kdtune.cli import main
from kdtune.cli.options import parser
from kdtune.commands.sweeps import continue_command
from kdtune.config.load import load_sweep, load_trial
from kdtune.config.reading.reader import parse_file, read_text
from kdtune.config.sweep import Block
from kdtune.errors import ConfigError

ALL = Block(0, {})

# ---- --set ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sets", "tau"),
    [([], 4.0), (["tau=2"], 2.0), (["loss.tau=2", "tau=3"], 3.0), (["tau=3", "trial.loss.tau=2"], 2.0)],
)
def test_set_goes_over_the_file_and_the_last_one_over_the_others(tmp_path: Path, sets: list[str], tau: float) -> None:
    assert load_sweep(write_sweep(tmp_path), sets).trial.loss.tau == tau


def test_set_reaches_the_sweep_itself(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path), ["search.candidates=9", "name=other", "prune.at=[early]", "seed=3"])
    assert (sweep.search.candidates, sweep.name, sweep.prune.at, sweep.trial.seed) == (9, "other", ["early"], 3)


def test_the_command_to_continue_names_the_same_sweep_with_more_candidates(tmp_path: Path) -> None:
    sets = ["tau=2", "search.candidates=3", "question=is it $HOME's?"]
    file = write_sweep(tmp_path).rename(tmp_path / "my sweep.yaml")
    words = ["sweep", str(file), *(word for each in sets for word in ("--set", each))]
    words += ["--store", str(tmp_path / "my runs"), "--backend", "inprocess"]
    given = parser().parse_args(words)
    line = continue_command(given, 16)
    options = parser().parse_args(shlex.split(line.removeprefix(pasteable())))
    assert options.set[-1] == "search.candidates=16"
    assert (options.store, options.backend) == (given.store, given.backend)
    assert load_sweep(options.file, options.set) == load_sweep(file, [*sets, "search.candidates=16"])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("tau", "key=value"),
        ("=3", "key=value"),
        ("tao=1", "did you mean tau"),
        ("tau=-1", "got -1"),
        ("tau=[", "not YAML"),
        ("search.candidats=3", "did you mean candidates"),
        ("data=1", "section with keys of its own"),
    ],
)
def test_a_wrong_set_is_refused_at_its_place(tmp_path: Path, text: str, what: str) -> None:
    for load in (load_sweep, load_trial):
        if load is load_trial and text.startswith("search."):
            continue
        with pytest.raises(ConfigError) as caught:
            load(write_sweep(tmp_path), [text])
        assert len(caught.value.problems) == 1
        where = caught.value.problems[0].where
        assert where.startswith("--set ")
        assert text.split("=")[0] in where
        assert what in str(caught.value)


def test_all_wrong_sets_are_in_one_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_sweep(write_sweep(tmp_path, ("    frames: 8", "    frames: 9")), ["tao=1", "lambda=-1", "alpha"])
    assert [what for what in ("tao", "lambda=-1", "alpha", "frames") if what not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("1E-3", 1e-3), ("2.5e+1", 25.0), ("5.e-4", 5e-4), (".5e1", 5.0), ("1", 1.0)]
)
def test_numbers_are_those_of_yaml_1_2(tmp_path: Path, text: str, value: float) -> None:
    file = write_sweep(tmp_path, ("    tau: 4.0", f"    tau: {text}"))
    assert load_sweep(file, [f"optimizer.lr={text}"]).trial.loss.tau == value
    assert load_sweep(file, [f"optimizer.lr={text}"]).trial.optimizer.lr == value


# ---- what a sweep file stands for ------------------------------------------------------------------------------------


def test_short_names_lead_to_their_paths(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path))
    values = {"student": "r21d", "teacher": "c3d", "lambda": 2.0, "tau": 3.0, "alpha": 0.1, "fraction": 0.25}
    config = sweep.build(ALL, values, 5)
    assert config.teacher is not None
    assert (config.student.backbone, config.teacher.student.backbone) == ("r21d", "c3d")
    assert (config.loss.lambda_, config.loss.tau, config.loss.alpha) == (2.0, 3.0, 0.1)
    assert (config.data.fraction, config.seed) == (0.25, 5)


def test_blocks_are_every_combination_but_the_excluded_ones(tmp_path: Path) -> None:
    file = write_sweep(
        tmp_path,
        ("  blocks: {data.fraction: [1.0, 0.25]}", "  blocks: {data.fraction: [1.0, 0.25], student: [r3d, c3d, r21d]}"),
        ("    teacher: [c3d]", "    teacher: [c3d, r21d]"),
        ("teachers:", "teachers:\n  r21d: {student: {backbone: r21d}}"),
        ("  seed: 0", "  exclude: [{student: c3d, data.fraction: 0.25}, {student: r21d, teacher: r21d}]"),
    )
    sweep = load_sweep(file)
    pairs = [(f, s) for f in (1.0, 0.25) for s in ("r3d", "c3d", "r21d") if (f, s) != (0.25, "c3d")]
    blocks = sweep.blocks()
    assert [(b.values["data.fraction"], b.values["student"]) for b in blocks] == pairs
    assert [b.index for b in blocks] == list(range(5))
    assert len({b.label for b in blocks}) == 5
    for block in blocks:
        allowed = ["c3d"] if block.values["student"] == "r21d" else ["c3d", "r21d"]
        assert sweep.space(block)["teacher"].choice == allowed
        for control in sweep.search.controls:
            config = sweep.build(block, control, 0)
            assert config.teacher is None
            assert (config.data.fraction, config.student.backbone) == tuple(block.values.values())
    # A block's exclusion does not change the file's own space.
    assert sweep.search.space["teacher"].choice == ["c3d", "r21d"]


def test_a_teacher_takes_what_it_leaves_out_from_the_trial_but_not_from_a_candidate(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path))
    values = {"teacher": "c3d", "optimizer.lr": 0.5, "alpha": 0.9, "fraction": 0.25, "student.width": 8}
    config = sweep.build(ALL, values, 7)
    teacher = config.teacher
    assert teacher is not None
    assert teacher.teacher is None
    assert (teacher.clip, teacher.epochs, teacher.stage_epochs) == (config.clip, 8, {"early": 2, "mid": 6, "late": 8})
    assert (teacher.student.backbone, teacher.student.width) == ("c3d", 6)
    assert (teacher.optimizer.lr, teacher.loss.alpha, teacher.data.fraction, teacher.seed) == (0.01, 0.5, 1.0, 0)
    # The teacher has its own data fraction, but its block's data set and clips.
    block = Block(0, {"data.fraction": 0.25, "data.split": 2, "clip.frames": 12, "student": "r21d"})
    teacher = sweep.build(block, {"teacher": "c3d"}, 0).teacher
    assert teacher is not None
    assert (teacher.data.fraction, teacher.data.split, teacher.clip.frames) == (1.0, 2, 12)
    assert teacher.student.backbone == "c3d"


def test_a_trial_files_teacher_inherits_too(tmp_path: Path) -> None:
    file = tmp_path / "trial.yaml"
    file.write_text("clip: {frames: 12}\nseed: 4\nteacher: {student: {backbone: c3d}, teacher: {epochs: 3}}\n")
    config = load_trial(file)
    assert config.teacher is not None
    assert config.teacher.teacher is not None
    assert (config.teacher.clip.frames, config.teacher.seed, config.teacher.student.backbone) == (12, 4, "c3d")
    assert (config.teacher.teacher.student.backbone, config.teacher.teacher.epochs) == ("c3d", 3)


# ---- shipped files ---------------------------------------------------------------------------------------------------

SHIPPED = sorted((ROOT / "sweeps").glob("*.yaml"))


@pytest.fixture
def schema(capsys: pytest.CaptureFixture[str]) -> dict:
    assert main(["schema"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_every_shipped_file_loads_and_fits_the_printed_schema(file: Path, schema: dict) -> None:
    jsonschema = pytest.importorskip("jsonschema")  # installed with ray
    jsonschema.Draft202012Validator.check_schema(schema)
    raw, _ = parse_file(read_text(file), file)
    load_sweep(file)
    jsonschema.validate(raw, schema)
    for section, name in ((raw, "nonsense"), (raw["search"], "nonsense"), (raw["trial"].setdefault("loss", {}), "tao")):
        section[name] = 1
        with pytest.raises(jsonschema.ValidationError, match=name):
            jsonschema.validate(raw, schema)
        del section[name]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_every_shipped_file_names_the_schema_that_is_printed(file: Path, schema: dict) -> None:
    first = file.read_text().split("\n")[0]
    named = file.parent / first.removeprefix("# yaml-language-server: $schema=")
    assert json.loads(named.read_text()) == schema


def test_there_are_shipped_files() -> None:
    assert SHIPPED
