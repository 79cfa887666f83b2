"""The cost of determinism: time of a training step with deterministic algorithms over that with torch's own choices.

    python benchmarks/determinism.py                  # small clips on the CPU, the papers' on a GPU where there is one
    python benchmarks/determinism.py --device cuda --frames 16 --batch 16 --out determinism.json

The step is a trial's: three clips through the network, cross-entropy and in-batch contrast, backward, SGD. Its clips
are random numbers that are already on the device. Each way to choose algorithms (WAYS) has its own process, because
torch keeps using convolutions once chosen, whatever is set later, and cuBLAS reads its workspace once. They take turns:
in each round every way trains for about TURN_S while the others wait. A ratio compares two turns of one round; printed
are the median over the rounds and, in brackets, the quartiles.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import nn

from common import machine, machine_line, parser, print_table, ratios, spread, write_json
from kdtune.clips.tuples import PRETEXT_CLASSES
from kdtune.config.trial import TrialConfig
from kdtune.models.heads import build_network
from kdtune.models.pools import MaxPool3d
from kdtune.train.inputs import SampleBatch
from kdtune.train.profile import make_deterministic
from step import standing_still, training_step

WAYS = {
    "default": "torch's choices and torch's MaxPool3d; all others are compared with this",
    "benchmark": "the same, and cuDNN tries its algorithms to take the fastest (CUDA alone)",
    "deterministic": "as in every trial, with our MaxPool3d",
    "unfilled": "the same, but torch does not fill the memory of new tensors (torch.utils.deterministic)",
}
NETWORKS = ("c3d", "r3d", "r21d")
SHAPES = {
    "cpu": {"frames": 8, "size": 32, "width": 8, "batch": 8},
    "cuda": {"frames": 10, "size": 112, "width": 64, "batch": 8},
}
WARM_UP = 3  # steps before the first turn
TURN_S = 0.3


def main() -> None:
    args = parse()
    rows, machines = [], {}
    for device in [args.device] if args.device else ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        given = {name: getattr(args, name) for name in SHAPES[device] if getattr(args, name) is not None}
        shape = SHAPES[device] | given
        ways = [way for way in WAYS if device == "cuda" or way != "benchmark"]
        for precision in args.precision or (["fp32", "bf16"] if device == "cuda" else ["fp32"]):
            for backbone in NETWORKS:
                config = trial(backbone, precision, shape)
                print(f"{device}, {precision}, {backbone} …", file=sys.stderr)
                seconds = measure(config, shape["batch"], device, ways, args.rounds)
                row = {"device": device, **shape, "precision": precision, "backbone": backbone}
                rows.append({**row, "threads": config.threads, "step_seconds": seconds})
                machines[device] = machine(config, device)
    for device, found in machines.items():
        print_ratios(device, found, [row for row in rows if row["device"] == device])
    write_json(args.out, {"ways": WAYS, "machines": machines, "rows": rows})


def parse() -> argparse.Namespace:
    made = parser(__doc__, "also write every turn's figure to this file, as JSON")
    for name, what in (
        ("frames", "T, frames in a clip"),
        ("size", "side of a clip in pixels"),
        ("width", "channels of a network's first stage"),
        ("batch", "tuples of three clips a step"),
    ):
        defaults = ", ".join(f"{shape[name]} on {device}" for device, shape in SHAPES.items())
        made.add_argument(f"--{name}", type=int, help=f"{what} (default: {defaults})")
    made.add_argument("--device", choices=list(SHAPES), help="default: every one there is")
    made.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], help="default: fp32, on CUDA also bf16")
    made.add_argument("--rounds", type=int, default=15, help="turns of each way, at least 2 (default: 15)")
    args = made.parse_args()
    if args.rounds < 2:
        made.error("--rounds must be at least 2: quartiles need two figures")
    return args


def trial(backbone: str, precision: str, shape: dict[str, int]) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "clip": {"frames": shape["frames"], "size": shape["size"]},
            "student": {"backbone": backbone, "width": shape["width"]},
            "loss": {"contrast": "in_batch"},
            "precision": precision,
        }
    )


# ---- measuring -------------------------------------------------------------------------------------------------------


def measure(config: TrialConfig, batch: int, device: str, ways: list[str], rounds: int) -> dict[str, list[float]]:
    """Return way → seconds per step, one figure per round."""
    with workers(config, batch, device, ways) as pipes:
        steps = max(1, math.ceil(TURN_S / ask(pipes["default"], 1)))
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, pipe in pipes.items():
                seconds[way].append(ask(pipe, steps))
    return seconds


@contextmanager
def workers(config: TrialConfig, batch: int, device: str, ways: list[str]) -> Iterator[dict[str, Connection]]:
    """Return way → the pipe to its process, once all have warmed up."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for way in ways:
        pipes[way], theirs = context.Pipe()
        processes.append(context.Process(target=work, args=(theirs, way, config, batch, device), daemon=True))
        processes[-1].start()
        theirs.close()
    for pipe in pipes.values():
        ask(pipe, WARM_UP)
    yield pipes
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(0)
        process.join()


def ask(pipe: Connection, steps: int) -> float:
    """Return the seconds of a step, as the mean over `steps`."""
    try:
        pipe.send(steps)
        return pipe.recv()
    except (EOFError, ConnectionError):
        sys.exit("a process has ended: its error stands above")


def work(pipe: Connection, way: str, config: TrialConfig, batch: int, device: str) -> None:
    """Train the requested numbers of steps, one request after another; 0 ends it."""
    choose(way, config)
    step = step_of(way, config, batch, torch.device(device))
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    while (steps := pipe.recv()) > 0:
        synchronize()
        started = time.perf_counter()
        for _ in range(steps):
            step()
        synchronize()
        pipe.send((time.perf_counter() - started) / steps)


def choose(way: str, config: TrialConfig) -> None:
    """Set this process's algorithms."""
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    make_deterministic(config)  # threads and TF32, too, which all ways share
    if way in ("default", "benchmark"):
        del os.environ["CUBLAS_WORKSPACE_CONFIG"]
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
        torch.backends.cudnn.benchmark = way == "benchmark"
        torch.backends.mkldnn.set_flags(_enabled=True)
    torch.utils.deterministic.fill_uninitialized_memory = way != "unfilled"


def step_of(way: str, config: TrialConfig, batch: int, device: torch.device) -> Callable[[], None]:
    network = build_network(config)
    if way in ("default", "benchmark"):
        use_torchs_pools(network)
    network.to(device).train()
    generator = torch.Generator().manual_seed(0)
    size = (config.clip.frames, config.clip.size, config.clip.size)
    clips = torch.randn(batch, 3, 3, *size, generator=generator).to(device)
    labels = torch.randint(PRETEXT_CLASSES, (batch,), generator=generator).to(device)
    return partial(training_step, config, network, standing_still(config, network), SampleBatch(clips, labels))


def use_torchs_pools(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, pool in list(parent.named_children()):
            if isinstance(pool, MaxPool3d):
                setattr(parent, name, nn.MaxPool3d(pool.kernel_size, pool.stride, pool.padding))


# ---- printing --------------------------------------------------------------------------------------------------------


def print_ratios(device: str, found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    shape = ", ".join(f"{name} {rows[0][name]}" for name in SHAPES[device])
    print(f"\n{shape}\n{machine_line(found)}")
    others = [way for way in rows[0]["step_seconds"] if way != "default"]
    table = []
    for row in rows:
        seconds = row["step_seconds"]
        default = statistics.median(seconds["default"]) * 1e3
        slower = [spread(ratios(seconds[way], seconds["default"])) for way in others]
        table.append([row["backbone"], row["precision"], f"{default:.1f}", *slower])
    print_table(["network", "precision", "default, ms", *(f"{way} ÷ default" for way in others)], table)


if __name__ == "__main__":
    main()
