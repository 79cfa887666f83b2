"""The section of a report on its races: what each look saw, dropped and decided."""

from __future__ import annotations

from collections.abc import Iterator

from kdtune.history.race import Looked
from kdtune.report.page import Heading, Part, Text
from kdtune.report.standing import SweepReport
from kdtune.tables import Cell, Column, Table, number


def race_parts(sweep: SweepReport) -> Iterator[Part]:
    """Yield the section; nothing if the sweep has no race."""
    rules = sweep.history.record.race
    if rules is None:
        return
    yield Heading("The race")
    within = "" if rules.margin is None else f", or within {rules.margin:g} {sweep.metric.unit} of it".rstrip()
    yield Text(
        f"Every candidate had {rules.first} seeds. A look at the results then dropped the candidates that could no "
        f"longer win, and gave the others and their control further seeds, {rules.most} at most, until a candidate was "
        f"better than the control, or all were worse{within}. The intervals of all looks hold together with a "
        f"probability of {rules.confidence:.4g}. {sweep.history.race_words}"
    )
    if (table := looks_table(sweep)) is not None:
        yield table


def looks_table(sweep: SweepReport) -> Table | None:
    """Return the looks of each block's race; None before the first one."""
    metric, rows = sweep.metric, []
    for standing in sweep.standings:
        race = standing.history.race
        for look in [] if race is None else race.looks:
            none = (None, None, None)
            mean, low, high = none if look.leader is None else look.gains.get(look.leader, none)
            cells = [Cell(standing.block), Cell(str(look.number), look.number)]
            cells += [Cell(str(len(look.control)), len(look.control))]
            cells += [Cell(str(len(look.candidates)), len(look.candidates))]
            cells += [
                Cell("" if look.leader is None else f"candidate {look.leader}"),
                Cell(metric.gain_text(mean), mean),
            ]
            cells += [Cell(metric.interval_text(low, high)), Cell(_dropped(look)), Cell(_decision(look))]
            rows.append(cells)
    columns = [Column("block"), number("look"), number("seeds"), number("candidates"), Column("leader")]
    columns += [number(metric.gain_head), number("interval"), Column("dropped"), Column("decision")]
    return Table(columns, rows, "Looks of the race", name="looks") if rows else None


def _dropped(look: Looked) -> str:
    return "; ".join(f"{number}: {reason}" for number, reason in sorted(look.dropped.items()))


def _decision(look: Looked) -> str:
    if look.decision is None:
        return "goes on"
    return f"{look.decision}: {look.reason}" if look.reason else look.decision
