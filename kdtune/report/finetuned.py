"""What fine-tuning reached: top-1 accuracies of every trial, and how the chosen ones confuse the classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from kdtune.config.trial import FINETUNE_STAGE
from kdtune.history.gains import Family
from kdtune.history.metric import MetricSpec
from kdtune.history.rows import parsed
from kdtune.report.page import Heading, Part
from kdtune.report.plots import GREY, drawn, figure_of
from kdtune.report.sections import gain_cells, mean_cell
from kdtune.report.standing import Entry, Standing, SweepReport
from kdtune.store import StoreFiles, TrialFiles
from kdtune.store.files import read_json
from kdtune.store.seal import passed_over
from kdtune.tables import Cell, Column, Table, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Maximum number of blocks whose confusion is drawn, of classes that are named, and of classes with numbers.
BLOCKS, NAMED, NUMBERED = 4, 40, 12
TOP1 = MetricSpec("top1", "validation", FINETUNE_STAGE, "max", "top1")


@dataclass(frozen=True)
class ClassFigures:
    """The answers of an action head on one split: the fields of classes_STAGE.json that a report needs."""

    actions: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Number of videos; a row for each true class, a column for each predicted one."""

    def __post_init__(self) -> None:
        if {len(self.actions)} != {len(self.confusion), *map(len, self.confusion)}:
            raise ValueError("confusion must have a row and a column for each action")


def finetuned_parts(store: StoreFiles, sweep: SweepReport) -> Iterator[Part]:
    """Yield the section on fine-tuning; nothing without it."""
    table = finetuned_table(sweep)
    if table is None:
        return
    yield Heading("After fine-tuning")
    yield table
    found = confusions(store, sweep)
    blocks = len({standing.block for standing, _, _ in found})
    shown = f" of the first {blocks} blocks" if blocks < len(sweep.standings) else ""
    caption = f"Test videos by true and predicted class, of the control and the best candidate{shown}, over all seeds."
    yield from drawn("confusion", caption, partial(confusion_plot, found))


def finetuned_table(sweep: SweepReport) -> Table | None:
    """Return the accuracies after fine-tuning; None without fine-tuning. Test figures are of the chosen alone."""
    shown = [TOP1, TOP1.other("f1"), TOP1.at(split="test")]
    rows, keys = [], []
    for standing in sweep.standings:
        for entry in [*standing.controls, *standing.candidates]:
            if not entry.finals(TOP1):
                continue
            tested = entry.is_control or entry in standing.best
            own = standing.history.is_control_itself(entry.trials[0].group)
            compared = standing.controls and not entry.is_control and not own
            gain = entry.gain(standing.controls[0], TOP1, Family(sweep.comparisons)) if compared else None
            cells = [Cell(standing.block), Cell(entry.described(sweep.varied_in(standing)))]
            cells += [mean_cell(entry, m) if m.split != "test" or tested else Cell("") for m in shown]
            rows.append([*cells, *gain_cells(gain, TOP1)])
            keys.append(entry.keys)
    columns = [Column("block"), Column("trial"), number("top-1 on validation"), number("F1 on validation")]
    columns += [number("top-1 on test"), number(TOP1.gain_head), number("interval"), Column("verdict")]
    note = (
        "Gains are of top-1 on validation, over the control's fine-tuning of the same seed. Test figures are shown for "
        "controls and chosen candidates."
    )
    return Table(columns, rows, "Accuracy after fine-tuning", [note], "finetuned", keys) if rows else None


def confusions(store: StoreFiles, sweep: SweepReport) -> list[tuple[Standing, Entry, ClassFigures]]:
    """Return the class figures on test of the first blocks' controls and leaders, summed over their seeds."""
    found = []
    for standing in [s for s in sweep.standings if s.leader is not None][:BLOCKS]:
        for entry in [*standing.controls[:1], *([standing.leader] if standing.leader is not None else [])]:
            if (figures := _summed(store, entry)) is not None:
                found.append((standing, entry, figures))
    return found


def _summed(store: StoreFiles, entry: Entry) -> ClassFigures | None:
    keys = [trial.finetuned for trial in entry.trials if trial.finetuned is not None]
    read = [class_figures(store.trial(key), FINETUNE_STAGE, "test") for key in keys]
    known = [figures for figures in read if figures is not None]
    if not known or len({figures.actions for figures in known}) > 1:
        return None
    rows = zip(*(figures.confusion for figures in known), strict=True)
    return ClassFigures(known[0].actions, tuple(tuple(map(sum, zip(*each, strict=True))) for each in rows))


def class_figures(files: TrialFiles, stage: str, split: str) -> ClassFigures | None:
    """Return the per-class figures of an action head; None if there are none or their file is damaged."""
    place = files.classes(stage)

    def read() -> ClassFigures | None:
        found = (read_json(place) or {}).get(split)
        return None if found is None else parsed(ClassFigures, found, place)

    return passed_over(read, None)


def confusion_plot(found: Sequence[tuple[Standing, Entry, ClassFigures]]) -> Figure | None:
    """Draw each matrix: a row for each true class, with the shares of its test videos by predicted class."""
    if not found:
        return None
    columns = 1 if len(found) == 1 else 2
    lines = -(-len(found) // columns)
    figure = figure_of(3.9 * lines, 8.0 if columns == 2 else 5.0)
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for ax, (standing, entry, figures) in zip(axes, found, strict=False):
        _draw(ax, figures)
        name = entry.name if entry.is_control else f"candidate {entry.name}"
        ax.set_title(f"{standing.block}: {name}")
    for empty in axes[len(found) :]:
        empty.remove()
    return figure


def _draw(ax: Axes, figures: ClassFigures) -> None:
    count = len(figures.actions)
    shares = [[hits / max(1, sum(row)) for hits in row] for row in figures.confusion]
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    ax.grid(visible=False)
    named = list(_short(figures.actions)) if count <= NAMED else []
    size = 8 if count <= NUMBERED else 5
    ax.set_xticks(range(len(named)), named, rotation=90, fontsize=size)
    ax.set_yticks(range(len(named)), named, fontsize=size)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    for y, row in enumerate(figures.confusion if count <= NUMBERED else ()):
        for x, hits in enumerate(row):
            colour = "white" if shares[y][x] > 0.55 else "black" if hits else GREY
            ax.text(x, y, str(hits), ha="center", va="center", fontsize=7, color=colour)


def _short(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        yield name if len(name) <= 18 else f"{name[:17]}…"
