"""The style of a report's plots, and the plots of gains and stages. matplotlib is imported only to draw.

Colours are Okabe and Ito's, which colour-blind people can distinguish; shapes or words repeat their meaning. The same
figures give the same bytes: no date, no version, and names of SVG parts that follow from the content. What belongs to
a trial carries the trial's keys, so that a page can mark the trial in all plots.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from kdtune.history.gains import Gain
from kdtune.history.metric import MetricSpec
from kdtune.history.words.verdicts import verdict_words
from kdtune.report.convergence import Curve, mean_curve
from kdtune.report.standing import Entry, SweepReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73"),
    *("#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
#: Colours of teachers and the like, in order of appearance. Yellow is too faint for a line.
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "#8C8C8C"
STYLE: dict[str, Any] = {
    "svg.hashsalt": "kdtune",
    "svg.fonttype": "path",
    # A dollar in a name must not begin a formula.
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
}
#: Width in inches, which a page shows in full.
WIDTH = 8.0
#: Maximum number of blocks in a plot, and of candidates per block in the plot of gains.
BLOCKS, CANDIDATES = 12, 10


@dataclass(frozen=True)
class Plot:
    """A drawn plot as SVG and PNG."""

    name: str
    caption: str
    svg: bytes
    """Parts of a trial are groups with `data-keys`, its keys, and the class `mark`, or `base` for a control."""
    png: bytes


#: A group of a drawn SVG with the identifier of `mark`.
MARK = re.compile(rb'<g id="(mark|base):([^"]*)">')


def mark(entry: Entry) -> str:
    """Return the identifier (matplotlib's gid) for what is drawn of a candidate or control."""
    return f"{'base' if entry.is_control else 'mark'}:{' '.join(entry.keys)}"


def drawn(name: str, caption: str, draw: Callable[[], Figure | None]) -> list[Plot]:
    """Return the plot, or an empty list if `draw` finds nothing to show."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = draw()
        if figure is None:
            return []
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    return [Plot(name, caption, MARK.sub(rb'<g class="\1" data-keys="\2">', svg.getvalue()), png.getvalue())]


def figure_of(height: float, width: float = WIDTH) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def panels(number: int, height: float, columns: int = 3, share: bool = True) -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel per block, on shared scales."""
    columns = min(columns, number)
    rows = math.ceil(number / columns)
    figure = figure_of(rows * height + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
    flat = [axes[i // columns][i % columns] for i in range(rows * columns)]
    for empty in flat[number:]:
        empty.remove()
    # With shared scales only the outer panels have numbers, and a panel above an empty place is one of them.
    for i in range(max(0, number - columns), number):
        flat[i].xaxis.set_tick_params(labelbottom=True)
    return figure, flat[:number]


def palette(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return name → colour and marker."""
    return {name: (COLOURS[i % 6], MARKERS[i % 6]) for i, name in enumerate(dict.fromkeys(names))}


def teachers_of(sweep: SweepReport) -> dict[str, tuple[str, str]]:
    """Return the candidates' teachers with their colours and markers."""
    return palette(sorted(str(trial.params["teacher"]) for trial in sweep.trials if not trial.is_control))


def teacher_name(teacher: object) -> str:
    """Return a label for legends."""
    return "no teacher" if teacher == "none" else f"teacher {teacher}"


def legend(figure: Figure, axes: Sequence[Axes], columns: int = 5) -> None:
    """Draw one legend below all panels, with each label once."""
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(columns, len(handles)))


# ---- gains -----------------------------------------------------------------------------------------------------------


#: Verdict → colour, marker and fill; undecided ones are hollow.
VERDICTS = {
    "better": (GREEN, "o", GREEN),
    "worse": (VERMILION, "s", VERMILION),
    "not decided": (BLUE, "D", "white"),
}


def gains_plot(sweep: SweepReport) -> Figure | None:
    """Draw the gain over the control of every block's best candidates, with intervals."""
    rows: list[tuple[str, Gain | None]] = []
    marks: list[str | None] = []
    for standing in sweep.standings:
        entries = [entry for entry in standing.candidates if entry.name in standing.gains][:CANDIDATES]
        params = sweep.varied_in(standing)
        names = [textwrap.shorten(entry.described(params).removeprefix("candidate "), 60) for entry in entries]
        rows += [(standing.block, None)] if entries else []
        rows += [(name, standing.gains[entry.name]) for name, entry in zip(names, entries, strict=True)]
        marks += [None, *map(mark, entries)] if entries else []
    gains = [gain for _, gain in rows if gain is not None]
    if not gains:
        return None
    reach = _reach([gain.mean for gain in gains], [end for gain in gains for end in _ends(gain)])
    figure = figure_of(0.9 + 0.21 * len(rows))
    ax = figure.subplots()
    for y, (_, gain) in enumerate(rows):
        if gain is not None:
            colour, marker, face = VERDICTS[gain.verdict]
            name = verdict_words(gain)
            _bar(ax, y, _ends(gain), reach, colour, marks[y])
            ax.plot([gain.mean], [y], marker, color=colour, mfc=face, ms=5.5, label=name, zorder=3, gid=marks[y])
    ax.axvline(0, color=BLACK, lw=1)
    ax.set_xlim(-reach, reach)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks(range(len(rows)), [name for name, _ in rows])
    for tick, (_, gain), gid in zip(ax.get_yticklabels(), rows, marks, strict=True):
        tick.set_gid(gid)
        if gain is None:
            tick.set_fontweight("bold")
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(sweep.metric.gain_head.replace("gain", f"gain over the control in {sweep.metric.name}", 1))
    legend(figure, [ax])
    return figure


def _ends(gain: Gain) -> list[float]:
    return [] if gain.low is None or gain.high is None else [gain.low, gain.high]


def _reach(means: list[float], ends: list[float]) -> float:
    """Return the end of the axis. It fits most intervals: one wide interval must not shrink the others to dots."""
    usual = max(3 * max(map(abs, means)), 1.3 * median(map(abs, ends)) if ends else 0.0)
    return 1.1 * min(max(map(abs, [*means, *ends])), usual) or 1.0


def _bar(ax: Axes, y: int, ends: list[float], reach: float, colour: str, gid: str | None) -> None:
    """Draw an interval, with an arrow if it extends beyond the axis."""
    if not ends:
        return
    low, high = max(-reach, ends[0]), min(reach, ends[1])
    ax.plot([low, high], [y, y], color=colour, lw=1.6, solid_capstyle="butt", gid=gid)
    if ends[0] < -reach:
        ax.plot([low], [y], "<", color=colour, ms=4, clip_on=False, gid=gid)
    if ends[1] > reach:
        ax.plot([high], [y], ">", color=colour, ms=4, clip_on=False, gid=gid)


# ---- stages ----------------------------------------------------------------------------------------------------------


def stages_plot(sweep: SweepReport, curves: dict[str, Curve], metric: MetricSpec) -> Figure | None:
    """Draw the metric by epoch, mean over the seeds, with a cross where a candidate was pruned."""
    shown = [s for s in sweep.standings if any(curves.get(t.key) for t in sweep.trials if t.block == s.block)]
    if not shown:
        return None
    from matplotlib.ticker import MaxNLocator

    figure, axes = panels(len(shown[:BLOCKS]), 2.3 if len(shown) > 3 else 3.0)
    teachers = teachers_of(sweep)
    for teacher, (colour, marker) in teachers.items():
        axes[0].plot([], [], color=colour, marker=marker, lw=1.1, ms=3, label=teacher_name(teacher))
    for ax, standing in zip(axes, shown, strict=False):
        for entry in standing.candidates:
            line = mean_curve([curves[key] for key in entry.keys if curves.get(key)])
            colour, marker = teachers[str(entry.params["teacher"])]
            pruned = entry.state == "pruned"
            faint = 0.45 if len(standing.candidates) > 12 else 0.85
            style = {"color": colour, "lw": 1.1, "alpha": faint, "marker": marker, "ms": 3, "gid": mark(entry)}
            ax.plot(line.keys(), line.values(), **style)
            if pruned and line:
                last = max(line)
                cross = {"marker": "x", "ms": 6, "mew": 1.6, "color": colour, "ls": "", "zorder": 4}
                ax.plot([last], [line[last]], **cross, gid=mark(entry))
        for entry in standing.controls:
            line = mean_curve([curves[key] for key in entry.keys if curves.get(key)])
            dashes = "-" if entry is standing.controls[0] else "--"
            style = {"color": BLACK, "lw": 2.2, "ls": dashes, "marker": ".", "zorder": 5, "gid": mark(entry)}
            ax.plot(line.keys(), line.values(), label=entry.name, **style)
        ax.set_title(standing.block)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    for ax in axes[-3:]:
        ax.set_xlabel("epoch")
    if any(entry.state == "pruned" for standing in shown for entry in standing.candidates):
        axes[0].plot([], [], marker="x", ms=6, mew=1.6, color=GREY, ls="", label="pruned there")
    figure.supylabel(metric.axis, fontsize=9)
    legend(figure, axes)
    return figure
