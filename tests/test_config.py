"""Configuration: defaults are the papers' values; wrong input is refused, all at once, each problem with its place."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import pytest
from helpers import write_sweep

from kdtune.config.load import load_sweep
from kdtune.config.trial import TrialConfig
from kdtune.errors import ConfigError

# REFERENCE.md, "The PCL sample", "The network", "Loss" and "Training".
PAPER = {
    "data.split": 1,
    "data.fraction": 1.0,
    "clip.frames": 10,
    "clip.size": 112,
    "clip.stored_size": (128, 171),
    "clip.stride": "pcl",
    "clip.start_stride": 11,
    "clip.tuple_frames": 46,
    "clip.modality": "residual",
    "pretext.spatial": "fixed",
    "pretext.temporal": "any",
    "augment.brightness": 0.4,
    "augment.contrast": 0.4,
    "augment.saturation": 0.4,
    "augment.hue": 0.1,
    "augment.jitter_p": 0.8,
    "augment.grey_p": 0.2,
    "augment.blur_p": 0.5,
    "augment.blur_sigma": (0.1, 2.0),
    "augment.flip_p": 0.5,
    "student.depth": 10,
    "student.width": 64,
    "teacher": None,
    "loss.alpha": 0.5,
    "loss.tau": 4.0,
    "loss.contrast": "memory_bank",
    "loss.temperature": 0.07,
    "loss.negatives": 1024,
    "loss.bank_momentum": 0.5,
    "loss.projection": 128,
    "optimizer.lr": 0.01,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 5e-4,
    "optimizer.batch": 16,
    "optimizer.schedule": "plateau",
    "optimizer.patience": 50,
    "optimizer.factor": 0.1,
    "optimizer.min_lr": 1e-5,
    "epochs": 200,
    "stage_epochs": {"early": 50, "mid": 150, "late": 200},
    "evaluation.clips": 10,
    "evaluation.neighbors": 1,
    "seed": 0,
    "threads": 1,
}

TWO = "  seed: 0\nobjective: [{{metric: {}}}, {{metric: {}}}]"
# (line of helpers.SWEEP, its replacement, the path that is named, the value got, what is allowed or the rule)
WRONG = [
    ("    tau: 4.0", "    tao: 4.0", "trial.loss.tao", "did you mean tau", "lambda, tau"),
    ("name: tiny", "name: tiny\nteecher: {}", "teecher", "did you mean teachers", "search"),
    ("  epochs: 8", "  epohcs: 8", "trial.epohcs", "did you mean epochs", "threads"),
    ("    lambda: 1.0", "    lambda: -1", "trial.loss.lambda", "got -1", "greater than or equal to 0"),
    ("    tau: 4.0", "    tau: 0", "trial.loss.tau", "got 0", "greater than 0"),
    ("    tau: 4.0", "    tau: -2.5", "trial.loss.tau", "got -2.5", "greater than 0"),
    ("    tau: 4.0", "    tau: .nan", "trial.loss.tau", "got nan", "finite"),
    ("    tau: 4.0", "    tau: warm", "trial.loss.tau", "got 'warm'", "number"),
    (
        "  data: {dataset: synthetic, fraction: 1.0}",
        "  data: {dataset: synthetic, fraction: 0}",
        "trial.data.fraction",
        "got 0",
        "greater than 0",
    ),
    (
        "  data: {dataset: synthetic, fraction: 1.0}",
        "  data: {dataset: synthetic, fraction: 1.5}",
        "trial.data.fraction",
        "got 1.5",
        "less than or equal to 1",
    ),
    ("  blocks: {data.fraction: [1.0, 0.25]}", "  blocks: {data.fraction: [1.0, 2.0]}", "search.blocks", "2.0", "1"),
    (
        "  stages: {early: 2, mid: 6, late: 8}",
        "  stages: {early: 6, mid: 2, late: 8}",
        "trial.stages",
        "got {'early': 6, 'mid': 2, 'late': 8}",
        "rising",
    ),
    ("  epochs: 8", "  epochs: 7", "trial", "got 8", "epochs=7"),
    ("    teacher: [c3d]", "    teacher: [c3dd]", "search.space.teacher", "unknown teacher, got 'c3dd'", "none, c3d"),
    (
        "  student: {backbone: r3d, width: 4}",
        "  student: {backbone: x3d}",
        "trial.student.backbone",
        "'x3d', did you mean s3d?",
        "r21d",
    ),
    ("    frames: 8", "    frames: 3", "trial.clip.frames", "got 3", "greater than or equal to 4"),
    *[("    frames: 8", f"    frames: {n}", "trial.clip.frames", f"T={n}", "four chunks") for n in (5, 6, 9)],
    ("    tau: {range: [1.0, 8.0]}", "    tau: {range: [0.0, 8.0]}", "search.space.tau", "got 0.0", "greater than 0"),
    ("    tau: {range: [1.0, 8.0]}", "    tau: {range: [8.0, 1.0]}", "search.space.tau", "[8.0, 1.0]", "low < high"),
    ("    tau: {range: [1.0, 8.0]}", "    tua: {range: [1.0, 8.0]}", "search.space.tua", "not a parameter", "tau"),
    ("  candidates: 4", "  candidates: 0", "search.candidates", "got 0", "greater than or equal to 1"),
    ("  seeds: [0, 1]", "  seeds: [1, 1]", "search.seeds", "got [1, 1]", "differ"),
    ("  seed: 0", "  seed: 0\nprune: {at: [never]}", "prune.at.0", "got 'never'", "early, mid, late"),
    ("  seed: 0", "  seed: 0\nobjective: {stage: soon}", "objective.stage", "got 'soon'", "early, mid, late"),
    (
        "  stages: {early: 2, mid: 6, late: 8}",
        "  stages: {a/b: 2, late: 8}",
        "trial.stages",
        "got 'a/b'",
        "letters, digits",
    ),
    # Several objectives, samplers, budgets.
    ("  seed: 0", "  seed: 0\nobjective: {metrik: knn}", "objective.metrik", "did you mean metric", "stage"),
    ("  seed: 0", TWO.format("knn", "gmac"), "objective.1.mode", "gmac is a cost, got max", "min"),
    ("  seed: 0", TWO.format("gmac, mode: min", "knn"), "objective.0.metric", "got gmac", "first objective"),
    ("  seed: 0", TWO.format("knn", "knnn"), "objective.1.metric", "got 'knnn', did you mean knn?", "linear"),
    ("  seed: 0", TWO.format("knn", "knn"), "objective.1", "is given twice", "objective"),
    ("  seed: 0", "  seed: 0\n  sampler: cmaes", "search.sampler", "two of them without `when`, got tau", "tpe, gp"),
    ("  seed: 0", "  seed: 0\n  sampler: bayes", "search.sampler", "got 'bayes'", "nsga2"),
    (
        "  seed: 0",
        "  seed: 0\n  exclude: [{data.fraction: 0.25, teacher: c3d}]",
        "search.exclude",
        "leaves no value of teacher",
        "fraction=0.25",
    ),
    ("  seed: 0", "  seed: 0\nstop: {hours: 0}", "stop.hours", "got 0", "greater than 0"),
    ("  seed: 0", "  seed: 0\nresources: {memory: -1}", "resources.memory", "got -1", "greater than 0"),
    (
        "    tau: {range: [1.0, 8.0]}",
        "    student.width: {int_log: [0, 8]}",
        "search.space.student.width",
        "[0, 8]",
        "must lie above 0",
    ),
    # Races.
    ("  seeds: [0, 1]", "  seeds: {race: {most: 1}}", "search.seeds.race.most", "got 1", "greater than or equal to 2"),
    ("  seeds: [0, 1]", "  seeds: {race: {first: 1}}", "search.seeds.race.first", "got 1", "2"),
    ("  seeds: [0, 1]", "  seeds: {race: {first: 5, most: 3}}", "search.seeds.race.most", "5, got 3", "5 or more"),
    ("  seeds: [0, 1]", "  seeds: {race: {margin: 0}}", "search.seeds.race.margin", "got 0", "greater than 0"),
    ("  seeds: [0, 1]", "  seeds: {race: {frist: 3}}", "search.seeds.race.frist", "did you mean first?", "confidence"),
    ("  seeds: [0, 1]", "  seeds: {rase: {}}", "search.seeds.rase", "did you mean race?", "race"),
    *[
        (
            "  seeds: [0, 1]",
            f"  seeds: {{race: {{confidence: {n}}}}}",
            "search.seeds.race.confidence",
            f"got {n}",
            "than",
        )
        for n in (0.5, 1.0)
    ],
    ("  seed: 0", "  seed: 0\n  controls: []", "search.controls", "got []", "at least 1"),
]


def line_of(file: Path, new: str) -> int:
    """Return the line number of the last line of `new`."""
    return file.read_text().split("\n").index(new.split("\n")[-1]) + 1


@pytest.mark.parametrize("path", PAPER)
def test_what_is_left_out_has_the_papers_value(path: str) -> None:
    value = reduce(getattr, path.split("."), TrialConfig())
    assert value == PAPER[path]
    assert not (isinstance(value, float) and isinstance(PAPER[path], int))


@pytest.mark.parametrize(("old", "new", "path", "got", "allowed"), WRONG, ids=[new.strip() for _, new, *_ in WRONG])
def test_bad_input_is_refused_with_its_place_what_was_got_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, path: str, got: str, allowed: str
) -> None:
    file = write_sweep(tmp_path, (old, new))
    with pytest.raises(ConfigError) as caught:
        load_sweep(file)
    told = [problem for problem in caught.value.problems if path in problem.where]
    assert told, str(caught.value)
    # A rule across several values is reported at the section that holds them all.
    line = 3 if path == "trial" else line_of(file, new)
    assert told[0].where.startswith(f"{file}:{line}: ")
    assert got in str(told[0])
    assert allowed in str(told[0])


def test_all_problems_of_a_file_are_in_one_message(tmp_path: Path) -> None:
    wrong = [WRONG[i] for i in (1, 3, 4, 8, 11, 15, 23)]
    file = write_sweep(tmp_path, *((old, new) for old, new, *_ in wrong))
    with pytest.raises(ConfigError) as caught:
        load_sweep(file)
    for _, new, path, *_ in wrong:
        assert any(f":{line_of(file, new)}: {path}" in p.where for p in caught.value.problems), f"{path} is not named"
    assert len(caught.value.problems) == len(wrong)


def test_all_problems_of_a_race_are_in_one_message_with_those_of_set(tmp_path: Path) -> None:
    race = ("  seeds: [0, 1]", "  seeds: {race: {first: 6, confidence: 1.5}}\n  controls: []")
    file = write_sweep(tmp_path, race, ("  seed: 0", TWO.format("knn", "gmac, mode: min")))
    with pytest.raises(ConfigError) as caught:
        load_sweep(file, ["search.seeds.race.most=4"])
    told = [str(problem) for problem in caught.value.problems]
    assert len(told) == 4
    for words in ("controls: List should", "confidence: should be less than 1, got 1.5", "got 4", "got 2 objectives"):
        assert any(words in problem for problem in told), words
    load_sweep(write_sweep(tmp_path, (*race[:1], "  seeds: {race: {}}")), ["search.seeds.race.most=4"])


def test_a_problem_does_not_hide_one_at_a_longer_name(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, ("  seed: 0", "  seed: x"), ("  seeds: [0, 1]", "  seeds: [1, 1]"))
    with pytest.raises(ConfigError) as caught:
        load_sweep(file)
    assert [p.where.split(": ")[1] for p in caught.value.problems] == ["search.seed", "search.seeds"]


@pytest.mark.parametrize(
    ("text", "what"),
    [("", "mapping"), ("- 1", "mapping"), ("name: [", "YAML"), ("name: x", "search: is missing"), ("a: b: c", "YAML")],
)
def test_files_that_are_no_sweep_are_refused(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=what):
        load_sweep(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_sweep(tmp_path / "absent.yaml")
