"""How sweeps get on that run elsewhere, with nothing but the store to read."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, TextIO

from kdtune.store import Store, SweepFiles
from kdtune.store.files import read_json
from kdtune.store.seal import passed_over
from kdtune.tables import Table
from kdtune.tables.terminal import for_terminal
from kdtune.watch.board import Board
from kdtune.watch.live import Live, watcher
from kdtune.watch.picture import best_words, show, tables
from kdtune.watch.reading import Reader, board_of

Row = dict[str, Any]

#: A driver touches its file every 5 seconds; one that was silent for so many has died.
SILENT = 30.0
#: Seconds between two looks at a sweep that is followed.
POLL = 1.0
#: Blocks whose best is named in the list of all sweeps.
SHOWN = 3


def status(store: Store, name: str) -> Row:
    """{"sweep": name, "state": "running" | "stopping" (it was asked to) | "complete" | "died" (the driver) | "stopped",
    "driver": {"host", "pid", "since": seconds since 1970, "address"} or None, …}, and what Board.picture holds.

    While nobody runs the sweep, its `running` trials are those that go on from their checkpoints when it is run again.
    Raises StoreError for an unknown name.
    """
    reader = Reader(store, name)
    return _status(reader, board_of(reader))


def show_status(found: Row, stream: TextIO) -> None:
    """Print `found` of status() as tables."""
    heading = f"{found['sweep']} · {_state_words(found['state'], found['driver'])}"
    show(tables(found, heading, "running" if _is_run(found["state"]) else "begun"), stream)


def follow(store: Store, name: str, stream: TextIO) -> None:
    """Show the sweep until nobody runs it: on a terminal redrawn, else as it is now, what then happens, and its end."""
    reader = Reader(store, name)
    board = board_of(reader)
    state, driver = _run_state(reader.files, board)
    with watcher(stream) as watch:
        if _is_run(state) and not isinstance(watch, Live):
            show_status(_status(reader, board), stream)
        while _is_run(state) and driver is not None:
            watch.heading = f"{name} · {_state_words(state, driver)}"
            watch.began = time.monotonic() - (time.time() - driver["since"])
            if watch.board is not board:
                watch.watch(board)
            time.sleep(POLL)
            # Before the rows: whatever was written before the driver left is then read.
            state, driver = _run_state(reader.files, board)
            if reader.current:
                reader.poll(watch.ledger, watch.epoch)
            else:  # another driver goes on with it, perhaps with more candidates
                reader = Reader(store, name)
                board = board_of(reader)
    show_status(_status(reader, board), stream)


def _status(reader: Reader, board: Board) -> Row:
    state, driver = _run_state(reader.files, board)
    picture = board.picture()
    if not _is_run(state):
        picture["time_left"] = None
    return {"sweep": reader.name, "state": state, "driver": driver, **picture}


# ---- all of them -----------------------------------------------------------------------------------------------------


def overview(store: Store) -> Row:
    """Return what the ledgers alone say of every sweep.

    {"store": as --store names it, "sweeps": [{"sweep", "state", "driver": as in status(), "done", "total", "failed":
    groups, "metric", "best": {block: as in Board.picture}}]}
    """
    sweeps = []
    for name in store.sweeps():
        reader = passed_over(partial(Reader, store, name), None)
        if reader is None:  # its record is damaged
            continue
        board = Board(reader.sweep)
        for row in reader.ledger.new():
            board.take(row)
        state, driver = _run_state(reader.files, board)
        picture = board.picture()
        failed = sum(tally.count("failed") for tally in (board.teachers, *board.blocks.values()))
        figures = {name: picture[name] for name in ("done", "total", "metric")}
        best = {block["block"]: block["best"] for block in picture["blocks"]}
        sweeps.append({"sweep": name, "state": state, "driver": driver, **figures, "failed": failed, "best": best})
    return {"store": str(store.place), "sweeps": sweeps}


def show_overview(found: Row, stream: TextIO) -> None:
    """Print `found` of overview(), a line a sweep."""
    if not found["sweeps"]:
        print(f"no sweep was run with {found['store']} yet", file=stream)
        return
    rows = []
    for sweep in found["sweeps"]:
        best = [(block, best_words(best)) for block, best in sweep["best"].items() if best is not None]
        words = [words if block == "all" else f"{block}: {words}" for block, words in best[:SHOWN]]
        words += [f"… and {len(best) - SHOWN} more blocks"] if len(best) > SHOWN else []
        who = "" if sweep["driver"] is None else _who(sweep["driver"])
        ended = f"{sweep['done']}/{sweep['total']}"
        rows.append([sweep["sweep"], sweep["state"], ended, str(sweep["failed"] or ""), ", ".join(words), who])
    show(for_terminal(Table.of(["sweep", "state", "ended", "failed", "best", "run by"], rows)), stream)


# ---- who runs it -----------------------------------------------------------------------------------------------------


def _run_state(files: SweepFiles, board: Board) -> tuple[str, Row | None]:
    """The state as in status(), and what the driver says of itself."""
    driver = passed_over(lambda: read_json(files.driver, ("host", "pid", "since", "address")), None)
    try:
        silent = time.time() - files.driver.stat().st_mtime
    except FileNotFoundError:  # it has just ended
        driver, silent = None, 0.0
    if driver is not None and silent < SILENT:
        return ("stopping" if files.stop.exists() else "running"), driver
    if board.done >= board.total:
        return "complete", None
    return ("stopped" if driver is None else "died"), driver


def _is_run(state: str) -> bool:
    return state in ("running", "stopping")


def _who(driver: Row) -> str:
    cluster = f", cluster {driver['address']}" if driver["address"] else ""
    return f"host {driver['host']}, pid {driver['pid']}{cluster}"


def _state_words(state: str, driver: Row | None) -> str:
    """For people, with what to do where the driver has died."""
    if driver is None:
        return "not running" if state == "stopped" else state
    if state == "died":
        return f"the driver died ({_who(driver)}): run the same command again to go on"
    return f"{state} ({_who(driver)})"
