"""The cost of tracking: rows logged per second, and the time that it adds to an epoch.

    python benchmarks/tracking.py                        # three rounds of the quick start's shape, some five minutes
    python benchmarks/tracking.py --rounds 1 --candidates 2 --out tracking.json

Added time: each round runs the same sweep twice in a fresh store, with MLflow on a SQLite database and with a publisher
that drops everything; the order alternates between rounds. It compares the epochs' own seconds, the seconds from the
first epoch's end to the last one's, and those of the whole sweep, which waits for MLflow at its end. System metrics are
measured in both; reading and writing a line of them is timed separately.

Rows per second: the publisher sends the rows of one of those trials, repeated as many longer ones, to an empty SQLite
database, and to an MLflow server on one.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from common import command, machine_line, parser, print_table, ratios, say, spread, this_machine, write_json
from kdtune.config.load import load_sweep
from kdtune.execute.driver import drive
from kdtune.execute.ray_tune import RayTune
from kdtune.store import StoreFiles, TrialFiles
from kdtune.store.files import read_json, write_jsonl
from kdtune.store.files import write_json as write_record
from kdtune.tracking.location import prepare_environment
from kdtune.tracking.publish import Publisher, TrackedTrial
from kdtune.tracking.record import row_metrics
from kdtune.tracking.serve import ui_command
from kdtune.tracking.sweep_text import SweepText
from kdtune.train.measuring.usage import UsageMeter
from kdtune.watch.live import Plain
from shapes import SHAPES, Place, place

SIDES = ("tracked", "untracked")
#: Trials and epochs that are sent for the rate.
TRIALS, EPOCHS = 40, 50
#: Number of timed lines of system metrics.
LINES = 200


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--rounds", type=int, default=3, help="default: 3")
    made.add_argument("--candidates", type=int, default=6, help="of a sweep (default: 6)")
    args = made.parse_args()
    rounds: list[dict[str, dict[str, float]]] = []
    with place(SHAPES["quick"], candidates=args.candidates) as at:
        for number in range(args.rounds):
            order = SIDES if number % 2 == 0 else SIDES[::-1]
            rounds.append({side: one_side(at, side, number) for side in order})
            say(f"round {number}: " + ", ".join(f"{side} {rounds[-1][side]['sweep_s']:.1f} s" for side in SIDES))
        trial = next(files for files in StoreFiles(at.folder / "tracked_0").trials() if files.result() is not None)
        rates = {name: rate(at.folder / name, trial, served) for name, served in (("SQLite", False), ("server", True))}
        line_s = seconds_of_a_line(at.folder)
        found = this_machine(at.sweep.trial)
    compared = {name: [[one[side][name] for one in rounds] for side in SIDES] for name in rounds[0]["tracked"]}
    print(f"\n{SHAPES['quick'].about}, {args.candidates} candidates\n{machine_line(found)}")
    rows = [
        [about, *(spread(values, 3) for values in compared[name]), spread(ratios(*compared[name]), 3)]
        for name, about in (("epoch_s", "an epoch"), ("span_s", "first epoch to last"), ("sweep_s", "the whole sweep"))
    ]
    print_table(["seconds", *SIDES, "ratio"], rows)
    print_table(
        ["MLflow", "rows a second", "metrics a second"],
        [[name, f"{one['rows_per_s']:,.0f}", f"{one['metrics_per_s']:,.0f}"] for name, one in rates.items()],
    )
    print(f"\na line of system metrics: {1000 * line_s:.2f} ms")
    write_json(args.out, {"machine": found, "rounds": rounds, "rates": rates, "line_s": line_s})


# ---- with and without ------------------------------------------------------------------------------------------------


def one_side(at: Place, side: str, number: int) -> dict[str, float]:
    """Run one sweep in another process. Return the seconds of its epochs and of itself."""
    store = at.copy_store(at.folder / f"{side}_{number}", clips=True)
    job = {"file": str(at.file), "store": str(store), "uri": f"sqlite:///{store}/mlflow.db", "side": side}
    file = at.folder / "job.json"
    file.write_text(json.dumps(job))
    before = {files.key for files in StoreFiles(store).trials()}
    _, said = command([sys.executable, __file__, "--job", str(file)])
    trained = [files.rows() for files in StoreFiles(store).trials() if files.key not in before]
    ends = [row["at"] for rows in trained for row in rows]
    seconds = [row["seconds"] for rows in trained for row in rows]
    return {
        "epoch_s": statistics.fmean(seconds),
        "span_s": max(ends) - min(ends),
        "sweep_s": float(said.splitlines()[-1]),
        "epochs": len(seconds),
    }


def run_job(file: Path) -> None:
    """Run in the process that `one_side` starts; print the sweep's seconds."""
    job = json.loads(file.read_text())
    path = Path(job["file"])
    uri = None if job["side"] == "untracked" else job["uri"]
    ending = drive(load_sweep(path), path.read_text(), StoreFiles(job["store"]), RayTune(), uri, Plain(lambda _: None))
    if ending.exit_code != 0 or ending.notes:
        sys.exit(f"the sweep ended otherwise than it should: {ending}")
    print(ending.seconds)


# ---- how fast rows are sent ------------------------------------------------------------------------------------------


def rate(folder: Path, trial: TrialFiles, served: bool) -> dict[str, float]:
    """Return rows and metrics per second into an empty database, including connecting and creating the runs."""
    prepare_environment()
    import kdtune.tracking.view  # noqa: F401  the seconds that its import takes are no row's

    trials = many(folder, trial)
    database = f"sqlite:///{folder}/mlflow.db"
    with server(database) if served else unserved(database) as uri:
        started = time.perf_counter()
        publisher = Publisher(uri, "tracking", SweepText("tracking"), None)
        for one in trials:
            publisher.update(one)
        unsent = publisher.close("complete", timeout_s=300)
        seconds = time.perf_counter() - started
    if unsent:
        sys.exit(str(unsent))
    rows = [row for one in trials for row in one.files.rows()]
    metrics = sum(len(row_metrics(row)) for row in rows)
    return {"seconds": seconds, "rows_per_s": len(rows) / seconds, "metrics_per_s": metrics / seconds}


def many(folder: Path, trial: TrialFiles) -> list[TrackedTrial]:
    """Return TRIALS trials of EPOCHS epochs that repeat the rows of `trial`."""
    store, rows = StoreFiles(folder / "store"), trial.rows()
    trials = []
    for number in range(TRIALS):
        files = store.trial(f"{number:032x}")
        write_record(files.config, read_json(trial.config))
        write_jsonl(files.epochs, ({**rows[i % len(rows)], "epoch": i + 1} for i in range(EPOCHS)))
        trials.append(TrackedTrial(files, f"trial {number}", {"key": files.key}, {}, "complete", 0.5))
    return trials


@contextmanager
def unserved(uri: str) -> Iterator[str]:
    yield uri


@contextmanager
def server(uri: str) -> Iterator[str]:
    """Run MLflow's server on this database as `kdtune ui` does. Yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address, null = f"http://127.0.0.1:{port}", subprocess.DEVNULL
    process = subprocess.Popen(ui_command(uri, port=port), stdout=null, stderr=null, start_new_session=True)
    try:
        while not answers(address):
            if process.poll() is not None:
                sys.exit("MLflow's server has ended")
            time.sleep(0.1)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def seconds_of_a_line(folder: Path) -> float:
    """Return the median seconds of a line of system metrics, as a worker writes one after each epoch."""
    meter, files = UsageMeter(torch.device("cpu")), StoreFiles(folder / "usage").trial("0" * 32)
    taken = []
    for epoch in range(LINES):
        row = {"epoch": epoch, "at": time.time()}
        started = time.perf_counter()
        meter.note(files, row)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        run_job(Path(sys.argv[2]))
    else:
        main()
