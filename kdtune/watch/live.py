"""Shows a sweep while it runs: a table that is redrawn on a terminal, or lines in a file or a pipe."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live as Redrawn

from kdtune.history.events import Ended, EpochEnd, Event
from kdtune.history.groups import GroupHistory, place_of
from kdtune.history.progress import picture
from kdtune.history.promotion import Promoted
from kdtune.history.race import Looked
from kdtune.history.record import SweepRecord
from kdtune.history.sweep import SweepHistory
from kdtune.messages import line_width, wrapped
from kdtune.units import duration
from kdtune.watch.picture import tables

#: Redraws per second.
RATE = 2


class Plain:
    """Prints lines that suit a log file. A context manager, as Live is."""

    _shows_stages = True

    def __init__(self, out: Callable[[str], object]) -> None:
        self._out = out
        self._lock = threading.RLock()  # Live draws in a thread of its own
        self.history: SweepHistory | None = None
        self.heading = ""
        """The heading of Live's table."""
        self.began = time.monotonic()
        """When the sweep began, by this process's clock."""

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, record: SweepRecord) -> None:
        """Show the sweep of this record. Its events follow."""
        self.watch(SweepHistory(record))

    def watch(self, history: SweepHistory) -> None:
        """Show `history`, which receives the events that follow and may hold earlier ones."""
        with self._lock:
            self.history = history
            self.heading = self.heading or history.name

    def say(self, text: str) -> None:
        """Print a line."""
        self._out(text)

    def apply(self, event: Event) -> None:
        """Apply an event to the history, and show what is new. The same event may come again."""
        assert self.history is not None, "events come after begin()"
        with self._lock:
            known = _is_known(self.history, event)
            group = self.history.apply(event)
            words = "" if known else self._words(self.history, group, event)
            done = f"{self.history.done:3d}/{self.history.total}"
        if words:  # printed outside of our lock, because printing takes the terminal's own lock
            self.say(f"[{time.monotonic() - self.began:6.0f} s · {done}] {words}")

    def _words(self, history: SweepHistory, group: GroupHistory | None, event: Event) -> str:
        """Return an event of `group` in words; empty for an event that is not printed."""
        if isinstance(event, Looked):
            return look_words(event)
        if group is None:  # the sweep no longer has it
            return ""
        match event:
            case EpochEnd(_, key, row) if row.stage in group.shown and self._shows_stages:
                shown, reached = group.shown[row.stage], group.reached[row.stage]
                figure = f"{shown.name} {shown.text(reached[key])}" if key in reached else ""
                return f"{group.trial_name(key)} · {row.stage}: {figure}" if figure else ""
            case Promoted(stage=stage):
                return f"{group.name} · promoted: it was pruned at {stage}, and resumes there"
            case Ended(_, _, False):
                return f"{group.name} · {end_words(history, group)}"
            case _:
                return ""


class Live(Plain):
    """Draws the history at the bottom of a terminal, at most RATE times a second; lines scroll above it.

    The table disappears when the context ends, because a summary or a last picture follows.
    """

    _shows_stages = False  # the table does

    def __init__(self, console: Console) -> None:
        super().__init__(
            lambda text: console.print(wrapped(text, console.width), markup=False, highlight=False, soft_wrap=True)
        )
        self._console = console
        # Standard output may be redirected. Other output on standard error is moved above the table.
        self._redrawn = Redrawn(
            console=console, get_renderable=self._draw, refresh_per_second=RATE, transient=True, redirect_stdout=False
        )

    def __exit__(self, *_: object) -> None:
        self._redrawn.stop()

    def watch(self, history: SweepHistory) -> None:
        super().watch(history)
        self._redrawn.start()

    def _draw(self) -> Group:
        with self._lock:
            if self.history is None:
                return Group()
            heading = f"{self.heading} · {duration(time.monotonic() - self.began)}"
            size = self._console.size
            return tables(self.history, picture(self.history), heading, height=size.height, width=size.width)


def watcher(stream: TextIO) -> Plain:
    """Return Live if `stream` is a terminal that can move its cursor, else Plain."""
    console = Console(file=stream)
    if stream.isatty() and console.is_terminal and not console.is_dumb_terminal:
        return Live(console)
    return Plain(lambda text: print(wrapped(text, line_width(stream)), file=stream, flush=True))


def _is_known(history: SweepHistory, event: Event) -> bool:
    """Return whether the history holds the event already, or ignores it."""
    match event:
        case EpochEnd(name, key, row):
            group = history.groups.get(name)
            return group is not None and key in group.reached.get(place_of(row), ())
        case Promoted():
            promoted = history.groups.get(event.group)
            return promoted is None or any(known == event for known, _ in promoted.promotions)
        case Looked():
            block = history.blocks.get(event.block)
            return block is None or block.race is None or block.race.known(event)
        case _:
            return False


def look_words(look: Looked) -> str:
    """Return what a look of a race found, in words."""
    reasons: dict[str, list[int]] = {}
    for number, reason in sorted(look.dropped.items()):
        reasons.setdefault(reason, []).append(number)
    found = [f"dropped {', '.join(map(str, numbers))} ({reason})" for reason, numbers in reasons.items()]
    found += [f"{len(look.left)} left"] if look.decision is None else []
    found += [f"{look.decision}{f': {look.reason}' if look.reason else ''}"] if look.decision is not None else []
    return f"{look.block} · race, look {look.number}: {'; '.join(found)}"


def end_words(history: SweepHistory, group: GroupHistory) -> str:
    """Return how a group ended, in words."""
    end = group.outcome
    assert end is not None, "the group must have ended"
    if end.state in ("failed", "infeasible"):
        return f"{end.state}: {end.error}"
    if end.state == "pruned":
        threshold = group.thresholds.get(end.stage or "")
        first = history.objectives[0]
        if end.stage in group.asked.fronts:
            return f"pruned at {end.stage}: dominated by earlier candidates"
        return f"pruned at {end.stage}" + ("" if threshold is None else f": {first.threshold_text(threshold)}")
    values = [f"{m.name} {m.text(value)}" for m, value in zip(history.objectives, end.objectives, strict=False)]
    return f"complete, {', '.join(values)}" if values else "complete"
