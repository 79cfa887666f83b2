"""The papers' question again: Tables 3 to 7 of KD with measured beside published values, and the early stage.

KD = Camarena, Gonzalez-Mendoza, Chang, J. Imaging 2024, 10(4), 85; its values are in published/. Those of UCF101 are
most probably pretext accuracies on the test list, the best so far at each stage, of one seed; so that is what stands
beside them. Table 3's HMDB51 column is what fine-tuning reached: the top-1 accuracy of stage `finetune` stands there.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from kdtune.config.space import resolve
from kdtune.config.sweep import SweepConfig
from kdtune.config.trial import FINETUNE_STAGE
from kdtune.history.intervals.means import paired_interval
from kdtune.report.plots import BLUE, GREY, ORANGE, figure_of, legend
from kdtune.report.standing import SweepReport
from kdtune.tables import Cell, Column, Table, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAGES = ("early", "mid", "late")
SOURCE = "Camarena, Gonzalez-Mendoza, Chang, J. Imaging 2024, 10(4), 85"
#: Data sets of the published values: all stages use the first, Table 3's fine-tuning the second. Values that are
#: measured on other data sets are not comparable.
PRETRAINED_ON, FINETUNED_ON = "ucf101", "hmdb51"
#: The metric of Table 3's second column: PCL's accuracy after fine-tuning.
FINETUNE_METRIC = "top1"
NETWORKS = {"r3d": "R3D", "c3d": "C3D", "r21d": "R(2+1)D", "none": "–"}


@dataclass(frozen=True)
class Line:
    """A row of Tables 4 to 7: a student from scratch or with a teacher, at one fraction of the data."""

    table: int
    fraction: float
    student: str
    teacher: str
    published: dict[str, float]
    measured: dict[str, dict[int, float]]
    """Stage (or `finetune`) → seed → value, for the stages that a trial has reached."""
    keys: list[str]

    def mean(self, stage: str) -> float | None:
        values = self.measured.get(stage)
        return fmean(values.values()) if values else None


@dataclass(frozen=True)
class Paper:
    """The rows of the paper's tables that a sweep measured."""

    column: str
    """The metric whose best value so far is shown at each stage."""
    dataset: str
    """The data set of the students' pre-training."""
    finetuned_on: str | None
    """The data set of fine-tuning; None without it."""
    best_of: str
    """The evaluations among which a best so far is chosen, in words."""
    lines: list[Line]

    def pairs(self, stage: str) -> list[tuple[Line, Line]]:
        """Return pairs (distilled, scratch) of the same student and fraction that have both reached the stage."""
        scratch = {(line.fraction, line.student): line for line in self.lines if line.teacher == "none"}
        rows = [(line, scratch[line.fraction, line.student]) for line in self.lines if line.teacher != "none"]
        return [(kd, base) for kd, base in rows if kd.measured.get(stage) and base.measured.get(stage)]


def published(name: str) -> Iterator[dict[str, str]]:
    """Yield the rows of a table as published; the first line of its file names the source."""
    text = (files("kdtune.report") / "published" / f"{name}.csv").read_text(encoding="utf-8")
    yield from csv.DictReader(text.splitlines()[1:])


def paper_of(sweep: SweepReport, config: SweepConfig) -> Paper | None:
    """Return the paper's rows as far as `sweep` has them.

    The result is None unless the sweep has the form of sweeps/paper.yaml: blocks of students and data fractions, and
    only teachers are searched. If the sweep trains the chosen candidates again, the rows are of those trials.
    """
    blocks = {resolve(name) for name in config.search.blocks}
    searched = {resolve(name) for name in config.search.space}
    if not {"student.backbone", "data.fraction"} <= blocks or searched != {"teacher"}:
        return None
    column = sweep.metric.column.removeprefix("best_")
    found: dict[tuple[float, str, str], tuple[dict[str, dict[int, float]], list[str]]] = {}
    for trial in sweep.trials if sweep.refits is None else sweep.refits:
        params = trial.params
        student = str(params["student"])
        stages, keys = found.setdefault((float(str(params["fraction"])), student, str(params["teacher"])), ({}, []))
        keys.append(trial.key)
        for stage, splits in trial.stages.items():
            name = FINETUNE_METRIC if stage == FINETUNE_STAGE else f"best_{column}"
            if name in splits["test"]:
                stages.setdefault(stage, {})[trial.seed] = splits["test"][name]
    lines = []
    for row in published("tables4to7_stages"):
        at = (float(row["fraction"]), row["student"], row["teacher"])
        if at in found:
            values = {stage: float(row[stage]) for stage in STAGES}
            lines.append(Line(int(row["table"]), *at, values, *found[at]))
    finetuned = config.trial.finetuned
    finetuned_on = None if finetuned is None else finetuned.data.dataset
    return Paper(column, config.trial.data.dataset, finetuned_on, _best_of(config), lines) if lines else None


def _best_of(config: SweepConfig) -> str:
    every, augmented = config.trial.stage.every, config.trial.evaluation.transform == "train"
    when = "at the stages alone" if every == 0 else "after every epoch" if every == 1 else f"every {every} epochs"
    labels = "under each of the five labels" if config.trial.asks_each_label else "under one drawn label"
    return f"evaluations {when}, of {'samples augmented as in training' if augmented else 'centre crops'} {labels}"


# ---- tables ----------------------------------------------------------------------------------------------------------


def paper_tables(paper: Paper) -> list[Table]:
    """Return Table 3 and one table for each data fraction that was measured."""
    tables = [_final(paper)]
    for table in sorted({line.table for line in paper.lines}):
        lines = [line for line in paper.lines if line.table == table]
        columns = [Column("student"), Column("teacher")]
        for stage in STAGES:
            columns += [number(stage), number(f"{stage}, published"), number("difference", f"{stage}, difference")]
        rows = [
            [*_names(line), *(c for s in STAGES for c in _beside(line.mean(s), line.published[s]))] for line in lines
        ]
        title = f"Table {table} of KD: {lines[0].fraction:.0%} of the data, best {paper.column} accuracy on test so far"
        keys = [line.keys for line in lines]
        tables.append(Table(columns, rows, title, [_note(paper)], f"paper_table{table}", keys))
    return tables


def _final(paper: Paper) -> Table:
    """Return Table 3: all of the data, at the last stage of pre-training and after fine-tuning if there is one."""
    full = {(line.student, line.teacher): line for line in paper.lines if line.fraction == 1.0}
    shown = [("late", "late", PRETRAINED_ON)]
    if paper.finetuned_on is not None:
        shown.append((FINETUNE_STAGE, "fine-tuned", FINETUNED_ON))
    columns = [Column("student"), Column("teacher")]
    for _, label, dataset in shown:
        columns += [number(label), number(f"published ({dataset})"), number(f"difference ({dataset})")]
    rows, keys = [], []
    for row in published("table3_accuracy"):
        line = full.get((row["student"], row["teacher"]))
        if line is not None:
            cells = (c for stage, _, dataset in shown for c in _beside(line.mean(stage), float(row[dataset])))
            rows.append([*_names(line), *cells])
            keys.append(line.keys)
    title = f"Table 3 of KD: accuracy in the end, all of the data: best {paper.column} accuracy on test so far"
    title += "" if paper.finetuned_on is None else f"; {FINETUNE_METRIC} on test after fine-tuning"
    return Table(columns, rows, title, [_note(paper, paper.finetuned_on)], "paper_table3", keys)


def _note(paper: Paper, finetuned_on: str | None = None) -> str:
    note = f"Published: {SOURCE}. Differences: measured − published, in points. Best so far: of {paper.best_of}."
    if paper.dataset != PRETRAINED_ON:
        note += f" Measured on {paper.dataset}, published on UCF101: not comparable."
    if finetuned_on not in (None, FINETUNED_ON):
        note += f" Fine-tuned on {finetuned_on}, published on HMDB51: not comparable."
    return note


def _names(line: Line) -> list[Cell]:
    return [Cell(NETWORKS.get(name, name), name) for name in (line.student, line.teacher)]


def _beside(measured: float | None, value: float) -> list[Cell]:
    if measured is None:
        return [Cell(""), Cell(f"{value:.2f}", value), Cell("")]
    difference = f"{100 * (measured - value):+.1f}".replace("-", "−")
    return [Cell(f"{measured:.3f}", measured), Cell(f"{value:.2f}", value), Cell(difference, measured - value)]


# ---- the early stage -------------------------------------------------------------------------------------------------


def early_words(paper: Paper) -> list[str]:
    """Return the measured and the published form of the paper's conclusion for each stage.

    That is the number of rows in which distillation is ahead of scratch, and by how much.
    """
    words = []
    for stage in STAGES:
        pairs = paper.pairs(stage)
        if not pairs:
            words.append(f"{stage}: no row has both its student from scratch and with a teacher yet.")
            continue
        gains = [(kd.mean(stage) or 0.0) - (base.mean(stage) or 0.0) for kd, base in pairs]
        theirs = [kd.published[stage] - base.published[stage] for kd, base in pairs]
        words.append(
            f"{stage}: measured, distillation is ahead in {_ahead(gains)} of {len(gains)} rows, on average by "
            f"{_points(fmean(gains))}{_over_seeds(pairs, stage)}; published, in {_ahead(theirs)} of {len(theirs)}, "
            f"by {_points(fmean(theirs))}."
        )
    return words


def _over_seeds(pairs: list[tuple[Line, Line]], stage: str) -> str:
    """Return the interval of the average over seeds, in words: each seed's average over the rows is one number."""
    common = set.intersection(*(set(line.measured[stage]) for pair in pairs for line in pair))
    averages = [fmean(kd.measured[stage][seed] - base.measured[stage][seed] for kd, base in pairs) for seed in common]
    if len(averages) < 2 or (ends := paired_interval(averages, 0.05)) is None:
        return " (one seed: no interval)" if len(averages) < 2 else ""
    return f" (95% interval over {len(averages)} seeds: {_points(ends[0])} to {_points(ends[1])})"


def _ahead(gains: list[float]) -> int:
    return sum(gain > 0 for gain in gains)


def _points(gain: float) -> str:
    return f"{100 * gain:+.1f} points".replace("-", "−")


def early_plot(paper: Paper) -> Figure | None:
    """Draw each row's gain at the early stage, measured beside published."""
    pairs = paper.pairs("early")
    if not pairs:
        return None
    figure = figure_of(0.9 + 0.22 * len(pairs))
    ax = figure.subplots()
    for y, (kd, base) in enumerate(pairs):
        gain = 100 * ((kd.mean("early") or 0.0) - (base.mean("early") or 0.0))
        theirs = 100 * (kd.published["early"] - base.published["early"])
        ax.plot([gain, theirs], [y, y], color="#D0D0D0", lw=1.5, zorder=1)
        ax.plot([gain], [y], "o", color=BLUE, ms=6, label="measured", zorder=3, gid=f"mark:{' '.join(kd.keys)}")
        ax.plot([theirs], [y], "D", color=ORANGE, ms=5, label="published", zorder=2)
        seeds = kd.measured["early"].keys() & base.measured["early"].keys()
        each = [100 * (kd.measured["early"][seed] - base.measured["early"][seed]) for seed in seeds]
        if len(each) > 1:
            ax.errorbar([gain], [y], xerr=[stdev(each)], color=BLUE, lw=1, capsize=2)
    names = [
        f"{kd.fraction:.0%} · {NETWORKS[kd.student]} from {NETWORKS.get(kd.teacher, kd.teacher)}" for kd, _ in pairs
    ]
    ax.set_yticks(range(len(pairs)), names)
    ax.set_ylim(len(pairs) - 0.4, -0.6)
    ax.axvline(0, color=GREY, lw=1)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("ahead of scratch at the early stage (points)")
    legend(figure, [ax])
    return figure
