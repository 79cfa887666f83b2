"""Tuples per second on one core, from a video's number to what the network eats: kdtune against decord and torchvision.

    python benchmarks/input.py                          # the quick start's shape and the papers', about two minutes
    python benchmarks/input.py --shape quick --rounds 20 --out input.json

kdtune reads stored frames and augments whole batches (training_samples); the other side is the baseline's Dataset with
torch's collate: decord reads, torchvision transforms frame by frame. Both give normalised residuals of three clips with
the middle one transformed, in batches of the shape's size. One process on one core, one thread, files in the page
cache; the sides take turns of about TURN_S. Where kdtune's own time goes is timed in turns of their own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

import kdtune.train.inputs as inputs
from baseline_data import Tuples
from common import machine_line, parser, print_table, ratios, say, spread, this_machine, write_json
from kdtune.clips.dataset import TrialData
from kdtune.train.inputs import training_samples
from shapes import SHAPES, Place, place

TURN_S = 1.0
CPU = torch.device("cpu")
#: Timed part of training_samples → the function that does it; the remainder is `rest`.
PARTS = {
    "draw": "draw_tuples",
    "read": "read_clips",
    "augment": "augment",
    "pretext": "transform_middle",
    "residual": "residual",
}


def main() -> None:
    args = parse()
    with ExitStack() as stack:
        places = {name: stack.enter_context(place(SHAPES[name], 1, train_teachers=False)) for name in args.shape}
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        torch.set_num_threads(1)
        rows = []
        for name, at in places.items():
            say(f"{name} …")
            rows.append({"shape": name, **measure(at, args.rounds)})
            found = this_machine(at.sweep.trial)
    print_rows(found, rows)
    write_json(args.out, {"machine": found, "rows": rows})


def parse() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--shape", nargs="+", choices=list(SHAPES), default=["quick", "paper"])
    made.add_argument("--rounds", type=int, default=10, help="turns of each side (default: 10)")
    return made.parse_args()


# ---- measuring -------------------------------------------------------------------------------------------------------


def measure(at: Place, rounds: int) -> dict[str, Any]:
    sides = {"kdtune": kdtune_side(at), "baseline": baseline_side(at)}
    batch = at.sweep.trial.optimizer.batch
    calls = {}
    for name, one_batch in sides.items():
        one_batch()  # opens files and fills caches
        started = time.perf_counter()
        one_batch()
        calls[name] = max(1, round(TURN_S / (time.perf_counter() - started)))
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    parts: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, one_batch in sides.items():
            started = time.perf_counter()
            for _ in range(calls[name]):
                one_batch()
            seconds[name].append((time.perf_counter() - started) / (calls[name] * batch))
        for part, value in parts_of(sides["kdtune"], calls["kdtune"]).items():
            parts.setdefault(part, []).append(value / batch)
    clip = at.sweep.trial.clip
    return {"frames": clip.frames, "size": clip.size, "batch": batch, "tuple_seconds": seconds, "part_seconds": parts}


def kdtune_side(at: Place) -> Callable[[], None]:
    config = at.sweep.trial
    data = TrialData.of(config, at.session.clips(config))
    batch, samples = config.optimizer.batch, np.arange(len(data.order))
    taken = 0

    def one_batch() -> None:
        nonlocal taken
        own = samples.take(range(taken, taken + batch), mode="wrap")
        training_samples(config, data, 1 + taken // len(samples), own, CPU)
        taken += batch

    return one_batch


def baseline_side(at: Place) -> Callable[[], None]:
    config = at.sweep.trial
    clips = at.session.clips(config)
    rows = clips.index.loc[TrialData.of(config, clips).order]
    paths = [str(at.folder / "videos" / video) for video in rows["video"]]
    data, batch = Tuples(list(zip(paths, rows["label"].tolist(), strict=True)), config, train=True), 0

    def one_batch() -> None:
        nonlocal batch
        size = config.optimizer.batch
        default_collate([data[i % len(data)] for i in range(batch * size, (batch + 1) * size)])
        batch += 1

    return one_batch


def parts_of(one_batch: Callable[[], None], calls: int) -> dict[str, float]:
    """Return the seconds of a batch in each part, by timers around the functions in PARTS."""
    spent = dict.fromkeys(PARTS, 0.0)
    own = {part: getattr(inputs, name) for part, name in PARTS.items()}

    def timed(part: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            value = own[part](*args, **options)
            spent[part] += time.perf_counter() - started
            return value

        return call

    try:
        for part, name in PARTS.items():
            setattr(inputs, name, timed(part))
        started = time.perf_counter()
        for _ in range(calls):
            one_batch()
        whole = time.perf_counter() - started
    finally:
        for part, name in PARTS.items():
            setattr(inputs, name, own[part])
    return {part: seconds / calls for part, seconds in {**spent, "rest": whole - sum(spent.values())}.items()}


# ---- printing --------------------------------------------------------------------------------------------------------


def print_rows(found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    print(machine_line(found))
    table = []
    for row in rows:
        seconds = row["tuple_seconds"]
        speed = {name: [1 / s for s in values] for name, values in seconds.items()}
        faster = ratios(seconds["baseline"], seconds["kdtune"])
        shape = f"{row['shape']}: {row['frames']}×{row['size']}², batch {row['batch']}"
        table.append([shape, spread(speed["kdtune"], 0), spread(speed["baseline"], 1), spread(faster, 1)])
    print_table(["shape", "kdtune, tuples/s", "baseline, tuples/s", "kdtune ÷ baseline"], table)
    parts = [*PARTS, "rest"]
    table = [
        [row["shape"], *(f"{1e3 * statistics.median(row['part_seconds'][part]):.3f}" for part in parts)] for row in rows
    ]
    print_table(["kdtune, ms a tuple", *parts], table)


if __name__ == "__main__":
    main()
