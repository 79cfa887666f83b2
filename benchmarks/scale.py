"""The driver's cost per trial, from 100 to 5,000 trials that only report, compared with bare Ray Tune.

    python benchmarks/scale.py                                      # 100, 1,000 and 5,000 trials, an hour or two
    python benchmarks/scale.py --trials 100 1000 --out scale.json   # about fifteen minutes
    python benchmarks/scale.py --sampler random                     # without TPE's own cost

kdtune: scale_kdtune.py, a sweep of one control and candidates whose workers write the TrialStore's records of three
epochs and two stages but train nothing; half are pruned at the first stage. `again` runs the finished sweep's command
once more. Ray Tune: scale_tune.py, OptunaSearch, ASHA and MLflow's callback; `bare` is the same without MLflow. Two
trials run at once; each side is a separate process with a fresh store and a fresh SQLite database.

A trial's time is the time from the first trial's end to the side's end, including MLflow's last row, divided by the
trials between. `last tenth` is the time of the last tenth of the trials, from end to end. CPU time and memory are those
of the driver's process with its threads, without Ray's own processes and the workers. For the driver's parts, the mean
over the last tenth of the calls is shown: CPU time of the calling thread (the publisher has its own) and, in brackets,
the elapsed time, which includes waiting for the disk and the other thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from common import command, machine_line, parser, print_table, say, this_machine, write_json
from scale_shared import EPOCHS, SPACE, STAGES, STARTUP
from shapes import SHAPES, Place, Shape, place

SIDES = ("kdtune", "tune", "bare")
#: Files written, by side: name → patterns below the side's folder.
FILES = {
    "trials": ["store/trials"],
    "ledger": ["store/sweeps/*/ledger_*"],
    "Optuna's journal": ["store/sweeps/*/study_*"],
    "mlflow.jsonl": ["store/sweeps/*/mlflow.jsonl"],
    "locks": ["store/locks"],
    "mlflow.db": ["mlflow.db*"],
    "MLflow's artifacts": ["artifacts"],
    "Ray Tune's results": ["ray"],
}


def main() -> None:
    args = parse()
    found: dict[str, dict[str, Any]] = {}
    with place(shape(args.sampler), candidates=1, train_teachers=False) as at:
        for number, trials in enumerate(args.trials):
            sides = args.sides if number % 2 == 0 else args.sides[::-1]
            for side in sides:
                figures = one_side(at, side, trials, args.sampler)
                said = f"{side}, {trials} trials: {1000 * figures['trial_seconds']:.0f} ms a trial"
                say(f"{said}, {1000 * figures['last_tenth_seconds']:.0f} ms in the last tenth")
                found.setdefault(str(trials), {})[side] = figures
        machine = this_machine(at.sweep.trial)
    content = {"machine": machine, "sampler": args.sampler, "trials": found}
    print_all(content)
    write_json(args.out, content)


def parse() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 5000], help="default: 100 1000 5000")
    made.add_argument("--sampler", choices=["tpe", "random"], default="tpe", help="default: tpe")
    made.add_argument("--sides", choices=SIDES, nargs="+", default=list(SIDES), help="default: all")
    return made.parse_args()


def shape(sampler: str) -> Shape:
    """A sweep over the space of scale_shared.py, on ten videos that are decoded once."""
    space = {name: {"log" if log else "range": [low, high]} for name, (low, high, log) in SPACE.items()}
    sweep = {
        "name": "scale",
        "trial": {
            "data": {"dataset": "synthetic", "validation": 0.3},
            "clip": {"frames": 8, "size": 32},
            "loss": {"negatives": 4},
            "epochs": EPOCHS,
            "stages": STAGES,
        },
        "search": {"space": space, "sampler": sampler, "startup": STARTUP},
        "objective": {"metric": "knn"},
        "prune": {"at": ["early"], "keep": 0.5},
        "resources": {"cpu": 1},
    }
    return Shape("trials that only report", SHAPES["few"].videos, sweep, candidates=1, rounds=1)


def one_side(at: Place, side: str, trials: int, sampler: str) -> dict[str, Any]:
    """Run one side in a fresh folder. Return its costs and what it wrote."""
    folder = at.folder / f"{side}_{trials}"
    folder.mkdir()
    uri = f"sqlite:///{folder}/mlflow.db"
    job = {"trials": trials, "out": str(folder / "out.json")}
    if side == "kdtune":
        at.copy_store(folder / "store", clips=True)
        candidates = [f"search.candidates={trials - 1}"]
        job |= {"file": str(at.file), "set": candidates, "store": str(folder / "store"), "tracking_uri": uri}
        script = "scale_kdtune.py"
    else:
        job |= {"sampler": sampler, "storage": str(folder / "ray"), "tracking_uri": uri if side == "tune" else None}
        script = "scale_tune.py"
    (folder / "job.json").write_text(json.dumps(job))
    seconds, _ = command([sys.executable, str(Path(__file__).with_name(script)), str(folder / "job.json")])
    figures = what_it_took(json.loads((folder / "out.json").read_text()))
    figures |= {"seconds": seconds, "bytes": sizes(folder)}
    if side == "kdtune":
        again = [sys.executable, "-m", "kdtune", "sweep", str(at.file), "--set", *candidates, "--store", job["store"]]
        figures["again_seconds"], _ = command(again, {"MLFLOW_TRACKING_URI": uri})
    return figures


def what_it_took(measured: dict[str, Any]) -> dict[str, Any]:
    """Return seconds, CPU seconds and MiB per trial, over all of them and in the last tenth."""
    ends, last = measured["ends"], measured["end"]
    tenth = max(1, len(ends) // 10)
    first, then, before = ends[0], ends[-1], ends[-1 - tenth]
    return {
        "start_seconds": first[0],
        "trial_seconds": (last[0] - first[0]) / (len(ends) - 1),
        "last_tenth_seconds": (then[0] - before[0]) / tenth,
        "close_seconds": last[0] - then[0],
        "trial_cpu_seconds": (last[1] - first[1]) / (len(ends) - 1),
        "last_tenth_cpu_seconds": (then[1] - before[1]) / tenth,
        "start_mib": first[2],
        "peak_mib": last[2],
        "parts": {name: part(calls, len(ends)) for name, calls in measured["parts"].items()},
    }


def part(calls: list[list[float]], trials: int) -> dict[str, float]:
    """Return seconds and CPU seconds per call in the last tenth of the calls, and all calls' CPU seconds per trial."""
    late = calls[-max(1, len(calls) // 10) :]
    return {
        "calls": len(calls),
        "last_tenth_seconds": statistics.fmean(seconds for seconds, _ in late),
        "last_tenth_cpu_seconds": statistics.fmean(cpu for _, cpu in late),
        "trial_cpu_seconds": sum(cpu for _, cpu in calls) / trials,
    }


def sizes(folder: Path) -> dict[str, int]:
    """Return the bytes written, by kind, without kinds that were not written."""
    found = {}
    for name, patterns in FILES.items():
        tops = [path for pattern in patterns for path in folder.glob(pattern)]
        files = [file for top in tops for file in ([top] if top.is_file() else top.rglob("*")) if file.is_file()]
        if files:
            found[name] = sum(file.stat().st_size for file in files)
    return found


# ---- what is printed -------------------------------------------------------------------------------------------------


def print_all(content: dict[str, Any]) -> None:
    print(f"\ntrials that only report, sampler {content['sampler']}, two at once")
    print(machine_line(content["machine"]))
    head = ["trials", "side", "ms a trial", "last tenth", "driver CPU ms", "last tenth", "start s", "peak MiB"]
    rows = []
    for trials, sides in content["trials"].items():
        for side in (name for name in SIDES if name in sides):
            figures = sides[side]
            ms = [1000 * figures[name] for name in ("trial_seconds", "last_tenth_seconds")]
            ms += [1000 * figures[name] for name in ("trial_cpu_seconds", "last_tenth_cpu_seconds")]
            again = f"{figures['again_seconds']:.0f}" if "again_seconds" in figures else "–"
            kib = sum(figures["bytes"].values()) / 2**10 / int(trials)
            rest = [f"{figures['start_seconds']:.0f}", f"{figures['peak_mib']:.0f}", f"{kib:.0f}", again]
            rows.append([f"{int(trials):,}", side, *(f"{value:.0f}" for value in ms), *rest])
    print_table([*head, "KiB a trial", "again s"], rows)
    own = {trials: sides["kdtune"] for trials, sides in content["trials"].items() if "kdtune" in sides}
    columns = [f"{int(trials):,} trials" for trials in own]
    parts = dict.fromkeys(name for figures in own.values() for name in figures["parts"])
    if parts:
        rows = [[name, *(of_part(figures["parts"].get(name)) for figures in own.values())] for name in parts]
        print_table(["kdtune's driver: CPU ms a call in the last tenth (ms)", *columns], rows)
    written = {(s, name) for sides in content["trials"].values() for s in sides for name in sides[s]["bytes"]}
    rows = []
    for side, name in sorted(written, key=lambda one: (SIDES.index(one[0]), list(FILES).index(one[1]))):
        found = [(sides.get(side, {}).get("bytes", {}).get(name), int(n)) for n, sides in content["trials"].items()]
        rows.append([side, name, *("–" if size is None else f"{size / 2**10 / n:.2f}" for size, n in found)])
    print_table(["side", "KiB a trial", *(f"{int(n):,} trials" for n in content["trials"])], rows)


def of_part(figures: dict[str, float] | None) -> str:
    if figures is None:
        return "–"
    return f"{1000 * figures['last_tenth_cpu_seconds']:.2f} ({1000 * figures['last_tenth_seconds']:.1f})"


if __name__ == "__main__":
    main()
