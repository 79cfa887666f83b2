"""The cost of a teacher: the first trial with it, which computes its targets, and later ones, which find them.

    python benchmarks/targets.py                                  # the quick start's shape, some minutes
    python benchmarks/targets.py --shape paper --rounds 1 --epochs 1

Each round trains a trial without a teacher and, for each teacher, one trial with a λ and τ in a store without targets,
then one with others in the same store. All run one after the other in this process, with decoded frames and trained
teachers. A ratio is a trial's seconds over those of the round's trial without a teacher.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from common import machine_line, parser, print_table, ratios, say, spread, this_machine, write_json
from kdtune.store import StoreFiles
from kdtune.train.session import Session
from shapes import SHAPES, Place, place

#: λ and τ of the first trial with a teacher, and of the later one.
FIRST, LATER = {"lambda": 0.5, "tau": 2.0}, {"lambda": 1.0, "tau": 4.0}
NONE = "no teacher"


def main() -> None:
    args = parse()
    shape = SHAPES[args.shape]
    with place(shape, 1, args.epochs) as at:
        seconds: dict[str, list[float]] = {}
        for number in range(args.rounds):
            for name, value in one_round(at, at.folder / f"round_{number}").items():
                say(f"round {number}: {name} {value:.1f} s")
                seconds.setdefault(name, []).append(value)
        found, trial = this_machine(at.sweep.trial), at.sweep.trial.model_dump(mode="json", by_alias=True)
    times = {name: ratios(values, seconds[NONE]) for name, values in seconds.items()}
    print(f"\n{shape.about}; {trial['epochs']} epochs\n{machine_line(found)}")
    rows = [[name, spread(seconds[name], 1), spread(times[name])] for name in seconds]
    print_table(["trial", "seconds", f"÷ {NONE}"], rows)
    write_json(args.out, {"shape": args.shape, "machine": found, "trial": trial, "seconds": seconds, "ratios": times})


def parse() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--shape", choices=list(SHAPES), default="quick", help="default: quick")
    made.add_argument("--rounds", type=int, default=5, help="default: 5")
    made.add_argument("--epochs", type=int, help="other than the shape's, with one stage at the end")
    return made.parse_args()


def one_round(at: Place, folder: Path) -> dict[str, float]:
    """Return trial → its seconds. All trials are in this round's own store."""
    session = Session(StoreFiles(at.copy_store(folder, clips=False)), dict(at.session.folders))
    train(at, session, {"teacher": "none", "alpha": 0.25})  # prepares the samples, which the others find
    seconds = {NONE: train(at, session, {"teacher": "none"})}
    for teacher in at.sweep.teachers:
        seconds[f"{teacher}, first"] = train(at, session, {"teacher": teacher, **FIRST})
        seconds[f"{teacher}, later"] = train(at, session, {"teacher": teacher, **LATER})
    return seconds


def train(at: Place, session: Session, values: dict[str, Any]) -> float:
    config = at.sweep.build(at.sweep.blocks()[0], values, seed=0)
    started = time.perf_counter()
    for _ in session.trial(config, torch.device("cpu")):
        pass
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
