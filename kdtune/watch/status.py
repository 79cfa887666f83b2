"""The state of sweeps that run elsewhere, read from the store alone."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from typing import TextIO

from rich.console import Group

from kdtune.history.progress import picture
from kdtune.history.reading import HistoryReader
from kdtune.history.sweep import SweepHistory
from kdtune.history.videos import videos_of
from kdtune.history.words.answer import Answer, answer
from kdtune.messages import line_width, wrapped
from kdtune.parse import JsonObject
from kdtune.store import StoreFiles
from kdtune.store.seal import passed_over
from kdtune.sweep.driver_life import Driver, DriverLife
from kdtune.tables import Table
from kdtune.tables.fit import fitted
from kdtune.tables.terminal import for_terminal
from kdtune.watch.live import Live, watcher
from kdtune.watch.picture import best_words, show, tables

#: Seconds between two polls of a sweep.
POLL = 1.0
#: Maximum number of blocks whose best is listed for each sweep.
SHOWN = 3


def status(store: StoreFiles, name: str) -> JsonObject:
    """Return the state of a sweep as JSON.

    {"sweep": name, "state": "running" | "stopping" (it was asked to) | "complete" | "died" (the driver) | "stopped",
    "driver": {"host", "pid", "since": seconds since 1970, "address", "seconds": that it has run} or None,
    "answer": the sentences of kdtune.history.words, …}, and what kdtune.history.progress.picture holds.

    While no driver runs, the `running` trials are those that resume from their checkpoints in the next run.
    Raises StoreError for an unknown name.
    """
    found, _ = _status(HistoryReader(store, name), DriverLife(store, name))
    return found


def show_status(store: StoreFiles, name: str, stream: TextIO) -> None:
    """Print the state of a sweep as tables. Raises StoreError for an unknown name."""
    _show(HistoryReader(store, name), DriverLife(store, name), stream)


def follow(store: StoreFiles, name: str, stream: TextIO) -> None:
    """Show the sweep until no driver runs it: redrawn on a terminal, else its present state, new events and its end."""
    reader, life = HistoryReader(store, name), DriverLife(store, name)
    history = reader.poll()
    state, driver = _run_state(life, history)
    with watcher(stream) as watch:
        if _is_run(state) and not isinstance(watch, Live):
            _show(reader, life, stream)
        if driver is not None:
            watch.began = time.monotonic() - driver.seconds
        while _is_run(state) and driver is not None:
            watch.heading = f"{name} · {_state_words(state, driver)}"
            if watch.history is not history:
                watch.watch(history)
            time.sleep(POLL)
            # Look before reading the rows, so that everything that the driver wrote before it left is read.
            state, driver = _run_state(life, history)
            if reader.current:
                reader.poll(watch.apply)
            else:  # another driver runs it now, perhaps with more candidates
                reader = HistoryReader(store, name)
                history = reader.poll()
    _show(reader, life, stream)


def _status(reader: HistoryReader, life: DriverLife) -> tuple[JsonObject, Driver | None]:
    history = reader.poll()
    state, driver = _run_state(life, history)
    found = picture(history)
    if not _is_run(state):
        found["time_left"] = None
    run = {"sweep": reader.name, "state": state, "driver": None if driver is None else asdict(driver)}
    return {**run, "answer": str(_answer(reader)), **found}, driver


def _answer(reader: HistoryReader) -> Answer:
    return answer(reader.history, videos_of(reader.store, reader.history))


def _show(reader: HistoryReader, life: DriverLife, stream: TextIO) -> None:
    found, driver = _status(reader, life)
    heading = f"{found['sweep']} · {_state_words(found['state'], driver)}"
    begun = "running" if _is_run(found["state"]) else "begun"
    show(tables(reader.history, found, heading, begun, width=line_width(stream)), stream)
    print(wrapped("\n".join(["", *_answer(reader).sentences]), line_width(stream)), file=stream, flush=True)


# ---- all sweeps ------------------------------------------------------------------------------------------------------


def overview(store: StoreFiles) -> JsonObject:
    """Return the state of every sweep, from the ledgers alone.

    {"store": as --store names it, "sweeps": [{"sweep", "state", "driver": as in status(), "done", "total", "failed":
    groups, "metric", "unit", "best": {block: as in picture}}]}
    """
    sweeps = []
    for history, state, driver in _sweeps(store):
        found = picture(history)
        run = {"sweep": history.name, "state": state, "driver": None if driver is None else asdict(driver)}
        figures = {name: found[name] for name in ("done", "total", "metric", "unit")}
        best = {block["block"]: block["best"] for block in found["blocks"]}
        sweeps.append({**run, **figures, "failed": history.counts()["failed"], "best": best})
    return {"store": str(store.place), "sweeps": sweeps}


def running(store: StoreFiles) -> list[str]:
    """Return the names of the sweeps that a driver runs."""
    return [history.name for history, state, _ in _sweeps(store) if _is_run(state)]


def show_overview(store: StoreFiles, stream: TextIO) -> None:
    """Print one line for every sweep of the store."""
    rows = []
    for history, state, driver in _sweeps(store):
        blocks = [block for block in picture(history)["blocks"] if block["best"] is not None]
        words = []
        for block in blocks[:SHOWN]:
            best = best_words(block["best"], history.objectives)
            words.append(best if block["block"] == "all" else f"{block['block']}: {best}")
        words += [f"… and {len(blocks) - SHOWN} more blocks"] if len(blocks) > SHOWN else []
        who, failed = "" if driver is None else _who(driver), str(history.counts()["failed"] or "")
        rows.append([history.name, state, f"{history.done}/{history.total}", failed, ", ".join(words), who])
    if not rows:
        print(f"no sweep was run with {store.place} yet", file=stream)
        return
    table, width = Table.of(["sweep", "state", "ended", "failed", "best", "run by"], rows), line_width(stream)
    show(Group(*map(for_terminal, [table] if width is None else fitted(table, width))), stream)


def _sweeps(store: StoreFiles) -> list[tuple[SweepHistory, str, Driver | None]]:
    """Return the history of every sweep whose record can be read, with the state of its driver."""
    found = []
    for name in store.sweeps():
        reader = passed_over(partial(HistoryReader, store, name), None)
        if reader is not None:
            history = reader.read(begun=False)
            found.append((history, *_run_state(DriverLife(store, name), history)))
    return found


# ---- driver ----------------------------------------------------------------------------------------------------------


def _run_state(life: DriverLife, history: SweepHistory) -> tuple[str, Driver | None]:
    """Return the state as in status(), and the driver's own record."""
    driver, alive = life.look()
    if alive:
        return ("stopping" if life.files.stop.exists() else "running"), driver
    if history.complete:
        return "complete", None
    return ("stopped" if driver is None else "died"), driver


def _is_run(state: str) -> bool:
    return state in ("running", "stopping")


def _who(driver: Driver) -> str:
    cluster = f", cluster {driver.address}" if driver.address else ""
    return f"host {driver.host}, pid {driver.pid}{cluster}"


def _state_words(state: str, driver: Driver | None) -> str:
    """Return the state in words, with what to do if the driver has died."""
    if driver is None:
        return "not running" if state == "stopped" else state
    if state == "died":
        return f"the driver died ({_who(driver)}): run the same command again to resume"
    return f"{state} ({_who(driver)})"
