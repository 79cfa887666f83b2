"""Plots of what was searched: λ × τ, importance, parallel coordinates, the Pareto set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from kdtune.config.space import Parameter, column_name, value_text
from kdtune.history.metric import MetricSpec
from kdtune.history.words.names import label
from kdtune.report.plots import (
    BLACK,
    BLOCKS,
    BLUE,
    GREY,
    VERMILION,
    WIDTH,
    figure_of,
    legend,
    mark,
    panels,
    teacher_name,
    teachers_of,
)
from kdtune.report.standing import Entry, SweepReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

#: A colour map from dark to bright. Both of its ends are visible on white, also to colour-blind people.
COLOURS = "viridis"


def searched(space: dict[str, Parameter]) -> dict[str, Parameter]:
    """Return the parameters of more than one value, by their names in trials."""
    found = {column_name(name): parameter for name, parameter in space.items()}
    return {name: p for name, p in found.items() if p.bounds is not None or len(p.choice or []) > 1}


def value_of(entry: Entry, metric: MetricSpec) -> float | None:
    """Return the mean over the seeds; None unless the entry is complete."""
    values = list(entry.finals(metric).values()) if entry.state == "complete" else []
    return fmean(values) if values else None


def _scale(sweep: SweepReport) -> Normalize:
    from matplotlib.colors import Normalize

    found = [value_of(entry, sweep.metric) for standing in sweep.standings for entry in standing.candidates]
    values = [value for value in found if value is not None]
    low, high = min(values), max(values)
    return Normalize(low, high) if low < high else Normalize(low - 0.01, high + 0.01)


def _has_values(sweep: SweepReport) -> bool:
    return any(standing.leader is not None for standing in sweep.standings)


# ---- λ × τ -----------------------------------------------------------------------------------------------------------


def map_plot(sweep: SweepReport, space: dict[str, Parameter]) -> Figure | None:
    """Draw every candidate at its λ and τ, coloured by its result; hollow ones were pruned or failed."""
    if not {"lambda", "tau"} <= searched(space).keys() or not _has_values(sweep):
        return None
    from matplotlib.cm import ScalarMappable

    shown = [standing for standing in sweep.standings if standing.candidates][:BLOCKS]
    figure, axes = panels(len(shown), 2.9, columns=2)
    scale, teachers = _scale(sweep), teachers_of(sweep)
    colours = ScalarMappable(scale, COLOURS)
    for ax, standing in zip(axes, shown, strict=True):
        for entry in reversed(standing.candidates):
            x, y = entry.params["lambda"], entry.params["tau"]
            if x is None or y is None:
                continue
            value = value_of(entry, sweep.metric)
            _, marker = teachers[str(entry.params["teacher"])]
            face, edge = ("none", GREY) if value is None else (colours.to_rgba(value), BLACK)
            ax.plot([x], [y], marker=marker, ms=7, mfc=face, mec=edge, mew=0.8, ls="", gid=mark(entry))
        for teacher, (_, marker) in teachers.items():
            ax.plot([], [], marker=marker, mfc=GREY, mec=BLACK, ls="", label=teacher_name(teacher))
        ax.plot([], [], marker="o", mfc="none", mec=GREY, ls="", label="pruned or failed (hollow)")
        _range(ax.xaxis, searched(space)["lambda"])
        _range(ax.yaxis, searched(space)["tau"])
        ax.set_title(standing.block)
        ax.set_xlabel("λ (weight of distillation)")
    axes[0].set_ylabel("τ (temperature)")
    figure.colorbar(colours, ax=axes, label=sweep.metric.axis.replace(" (", "\n("), shrink=0.95, pad=0.02)
    legend(figure, axes)
    return figure


def _range(axis: Axis, parameter: Parameter) -> None:
    """Show the whole searched range on an axis, even if the candidates cover only a part of it."""
    if parameter.bounds is None:
        return
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    (low, high), set_limits = parameter.bounds, getattr(axis.axes, f"set_{axis.axis_name}lim")
    if not parameter.is_log:
        set_limits(low - 0.05 * (high - low), high + 0.05 * (high - low))
        return
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    set_limits(low * (low / high) ** 0.05, high * (high / low) ** 0.05)
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 300 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


# ---- importance ------------------------------------------------------------------------------------------------------


def importance_plot(importances: dict[str, dict[str, float]]) -> Figure | None:
    """Draw the parameters' shares of the importance for each block."""
    if not importances:
        return None
    names = list(dict.fromkeys(name for shares in importances.values() for name in shares))
    names.sort(key=lambda name: fmean(shares.get(name, 0.0) for shares in importances.values()))
    shown = dict(list(importances.items())[:BLOCKS])
    figure, axes = panels(len(shown), 0.6 + 0.24 * len(names), columns=3)
    for ax, (block, shares) in zip(axes, shown.items(), strict=True):
        values = [shares.get(name, 0.0) for name in names]
        ax.barh(range(len(names)), values, color=BLUE, height=0.62)
        for y, value in enumerate(values):
            ax.text(value + 0.015, y, f"{value:.0%}", va="center", fontsize=8)
        ax.set_yticks(range(len(names)), [label(name) for name in names])
        ax.set_xlim(0, 1.15)
        ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        ax.grid(axis="y", visible=False)
        ax.set_title(block)
        ax.set_xlabel("share of the importance")
    return figure


# ---- parallel coordinates --------------------------------------------------------------------------------------------


def parallel_plot(sweep: SweepReport, space: dict[str, Parameter]) -> Figure | None:
    """Draw a line for each candidate through its values to its result; faint ones were pruned or failed."""
    parameters = searched(space)
    if not parameters or not _has_values(sweep):
        return None
    from matplotlib.cm import ScalarMappable

    shown = [standing for standing in sweep.standings if standing.leader is not None][:BLOCKS]
    height = 2.3
    figure = figure_of(height * len(shown) + 0.5, WIDTH)
    axes: Sequence[Axes] = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    scale = _scale(sweep)
    colours = ScalarMappable(scale, COLOURS)
    for ax, standing in zip(axes, shown, strict=True):
        last = len(parameters)
        for entry in reversed(standing.candidates):
            places = [_place(entry.params.get(name), p) for name, p in parameters.items()]
            points = [(x, y) for x, y in enumerate(places) if y is not None]
            value = value_of(entry, sweep.metric)
            if value is not None:
                points.append((last, float(scale(value))))
            colour = "#CFCFCF" if value is None else colours.to_rgba(value)
            width, level = (0.8, 1) if value is None else (1.4, 2)
            ax.plot(*zip(*points, strict=True), color=colour, lw=width, zorder=level, gid=mark(entry))
        for x, (name, parameter) in enumerate(parameters.items()):
            _axis(ax, x, label(name), _ticks(parameter))
        ends = [(y, sweep.metric.text(scale.vmin + y * (scale.vmax - scale.vmin))) for y in (0.0, 0.5, 1.0)]
        _axis(ax, last, sweep.metric.name, ends)
        ax.set_title(standing.block, pad=18)
        ax.set_xlim(-0.25, last + 0.35)
        ax.set_ylim(-0.08, 1.08)
        ax.axis("off")
    return figure


def _place(value: Any, parameter: Parameter) -> float | None:
    """Return the value's place on the parameter's axis, 0 … 1; None if the candidate lacks the parameter."""
    if value is None:
        return None
    if parameter.choice is not None:
        texts = [str(choice) for choice in parameter.choice]
        return texts.index(str(value)) / (len(texts) - 1) if str(value) in texts else None
    low, high = parameter.bounds or (0.0, 1.0)
    if parameter.is_log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def _ticks(parameter: Parameter) -> list[tuple[float, str]]:
    if parameter.choice is not None:
        return [(i / (len(parameter.choice) - 1), str(choice)) for i, choice in enumerate(parameter.choice)]
    low, high = parameter.bounds or (0.0, 1.0)
    middle = math.sqrt(low * high) if parameter.is_log else (low + high) / 2
    ends = [low, middle, high] if parameter.int is None and parameter.int_log is None else [low, high]
    return [(_place(value, parameter) or 0.0, value_text(float(f"{value:.3g}"))) for value in ends]


def _axis(ax: Axes, x: float, name: str, ticks: list[tuple[float, str]]) -> None:
    ax.plot([x, x], [0, 1], color=BLACK, lw=1, zorder=3)
    ax.annotate(name, (x, 1), xytext=(0, 9), textcoords="offset points", ha="center", fontweight="bold")
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
    for y, text in ticks:
        side = {"xytext": (4, 0)} if x else {"xytext": (-4, 0), "ha": "right"}
        ax.annotate(text, (x, y), textcoords="offset points", va="center", fontsize=8, bbox=box, zorder=4, **side)


# ---- several objectives ----------------------------------------------------------------------------------------------


def pareto_plot(sweep: SweepReport) -> Figure | None:
    """Draw the first objective over each of the others, with a line through the candidates of the Pareto set."""
    first, *others = sweep.metrics
    shown = [standing for standing in sweep.standings if standing.best][:BLOCKS]
    if not others or not shown:
        return None
    pairs = [(standing, other) for standing in shown for other in others]
    figure, axes = panels(len(pairs), 3.2, columns=2, share=False)
    teachers = teachers_of(sweep)
    for ax, (standing, other) in zip(axes, pairs, strict=True):
        for entry in standing.candidates:
            x, y = value_of(entry, other), value_of(entry, first)
            if x is not None and y is not None:
                colour, marker = teachers[str(entry.params["teacher"])]
                name = teacher_name(entry.params["teacher"])
                ax.plot([x], [y], marker=marker, color=colour, ms=6, ls="", label=name, alpha=0.9, gid=mark(entry))
        front = sorted((value_of(entry, other) or 0.0, value_of(entry, first) or 0.0) for entry in standing.best)
        ax.plot(*zip(*front, strict=True), color=GREY, lw=1.2, zorder=1, label="Pareto set")
        for entry in standing.controls:
            x, y = value_of(entry, other), value_of(entry, first)
            if x is not None and y is not None:
                style = {"marker": "*", "color": VERMILION, "ms": 10, "ls": "", "zorder": 4}
                ax.plot([x], [y], label="control", gid=mark(entry), **style)
        # A candidate beyond the line would be better in both objectives, so the numbers find free space there.
        side, up = (-5 if other.mode == "min" else 5), (4 if first.mode == "max" else -10)
        beside = {"xytext": (side, up), "textcoords": "offset points", "ha": "right" if side < 0 else "left"}
        for entry in standing.best:
            at = (value_of(entry, other) or 0.0, value_of(entry, first) or 0.0)
            ax.annotate(entry.name, at, fontsize=8, gid=mark(entry), **beside)
        ax.set_title(standing.block if standing.block != "all" or len(shown) > 1 else "")
        ax.set_xlabel(f"{other.axis}: {'less' if other.mode == 'min' else 'more'} is better")
        ax.set_ylabel(first.axis)
    legend(figure, axes)
    return figure
