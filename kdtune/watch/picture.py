"""A sweep's state as tables, for a terminal that redraws them or as plain text for a pipe."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.table import Table as Drawn
from rich.text import Text

from kdtune.history.groups import STATES
from kdtune.history.metric import MetricSpec
from kdtune.history.sweep import SweepHistory
from kdtune.parse import JsonObject, printable
from kdtune.tables import Table
from kdtune.tables.fit import fitted
from kdtune.tables.terminal import for_terminal
from kdtune.units import duration

#: Width of output to a pipe, in characters. Nothing is cut there.
WIDE = 400


def tables(
    history: SweepHistory,
    picture: JsonObject,
    heading: str,
    begun: str = "running",
    height: int | None = None,
    width: int | None = None,
) -> Group:
    """Return the `picture` of a history under `heading`, in at most `height` lines of at most `width` characters;
    `begun` is the word for groups that have begun and not ended."""
    progress = f"{picture['done']}/{picture['total']} ended"
    left = [] if picture["time_left"] is None else [f"about {duration(picture['time_left'])} left"]
    parts: list[Text | Drawn] = [_line(" · ".join([heading, progress, *left]))]
    blocks = [picture["teachers"], *picture["blocks"]] if picture["teachers"] else picture["blocks"]
    groups = picture["running"]
    if height is not None:
        room = max(2, height - 8)  # lines left beside headings, rules and the counts of omitted rows
        if len(blocks) + len(groups) > room:
            groups = groups[: max(room // 2, room - len(blocks))]
            # Show blocks with running groups first.
            blocks = sorted(blocks, key=lambda block: block["running"] == 0)[: room - len(groups)]
    objectives = history.objectives
    states = [state for state in STATES if state != "infeasible" or any(block[state] for block in blocks)]
    heads = ["block", *(begun if state == "running" else state for state in states)]
    heads += ["Pareto set"] if len(objectives) > 1 else [f"best {history.metric.name}", history.metric.gain_head]
    heads += ["race"] if history.record.race is not None else []
    counts = [[block["block"], *(str(block[state] or "") for state in states)] for block in blocks]
    best = [_best(block, objectives) for block in blocks]
    raced = [_race(block) if history.record.race is not None else [] for block in blocks]
    rows = [[*row, *cells, *race] for row, cells, race in zip(counts, best, raced, strict=True)]
    parts += _fitted(Table.of(heads, rows), width)
    parts += _rest(len(picture["blocks"]) + bool(picture["teachers"]) - len(blocks), "blocks")
    if groups:
        running = Table.of([begun, "epoch", "reached"], [_group(history, group) for group in groups])
        parts += [Text(), *_fitted(running, width), *_rest(len(picture["running"]) - len(groups), begun)]
    return Group(*parts)


def _fitted(table: Table, width: int | None) -> list[Drawn]:
    return [for_terminal(part) for part in (fitted(table, width) if width is not None else [table])]


def show(drawn: RenderableType, stream: TextIO) -> None:
    """Print `drawn` once: at a terminal's width with bold heads, else as plain text that is not cut."""
    if stream.isatty():
        Console(file=stream).print(drawn)
        return
    text = io.StringIO()
    Console(file=text, width=WIDE, force_terminal=False, color_system=None).print(drawn)
    print("\n".join(line.rstrip() for line in text.getvalue().splitlines()), file=stream, flush=True)


def best_words(best: JsonObject, objectives: Sequence[MetricSpec]) -> str:
    """Return a block's best in one cell, as in `0.521 (no. 2)` or `Pareto set of 3`."""
    if "candidates" in best:
        return f"Pareto set of {len(best['candidates'])}"
    return f"{objectives[0].text(best['objective'])} (no. {best['candidate']})"


def _best(block: JsonObject, objectives: Sequence[MetricSpec]) -> list[str]:
    best, first = block["best"], objectives[0]
    if len(objectives) == 1 and block.get("values"):  # the teachers' own
        return [", ".join(f"{name} {first.text(value)}" for name, value in block["values"].items()), ""]
    if best is None:
        return [""] if len(objectives) > 1 else ["", ""]
    if "candidates" in best:
        return [str(len(best["candidates"]))]
    return [best_words(best, objectives), first.gain_text(best["gain"])]


def _race(block: JsonObject) -> list[str]:
    return [block["race"]["words"] if "race" in block else ""]


def _group(history: SweepHistory, group: JsonObject) -> list[str]:
    shown = history.groups[group["group"]].shown.get(group["stage"])
    reached = "" if shown is None else f"{group['stage']}: {shown.name} {shown.text(group['value'])}"
    return [group["trial"], f"{group['epoch']} of {group['epochs']}", reached]


def _line(text: str) -> Text:
    return Text(printable(text), no_wrap=True, overflow="ellipsis")


def _rest(number: int, what: str) -> list[Text]:
    return [_line(f"… and {number} more {what}")] if number else []
