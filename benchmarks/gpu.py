"""How well a training step uses a GPU, without Ray.

    python benchmarks/gpu.py                                             # every network, batch and precision
    python benchmarks/gpu.py --networks r3d --batches 16 --precision bf16 --out gpu.json
    python benchmarks/gpu.py --device cpu --size 32 --width 8 --batches 8 --rates 256 --precision fp32    # a rehearsal

The step is a trial's: three clips of each of `batch` tuples through the network, cross-entropy and in-batch contrast,
backward, SGD, with deterministic algorithms. It is measured in turns in two ways: with the trial's own input (frames in
a ClipStore, read by --workers processes, augmented on the device) and on batches that lie on the device already. What
the first takes longer is waiting for input. FLOPs are counted by torch as they are computed, forward and backward. They
are set against what this very device reached in this precision: a large matrix product, and the best of some
convolutions like those of the networks.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import conv3d
from torch.optim import SGD
from torch.utils.flop_counter import FlopCounterMode

from common import machine, machine_line, parser, print_table, ratios, say, spread, write_json
from kdtune.clips.dataset import TrialData
from kdtune.clips.frames.rendered import rendered_clips
from kdtune.clips.motion import CLASSES
from kdtune.config.trial import TrialConfig
from kdtune.models.heads import PclNetwork, build_network
from kdtune.train.inputs import SampleBatch
from kdtune.train.profile import make_deterministic
from kdtune.train.samples import Samples
from step import standing_still, training_step

WARM_UP = 3  # steps
IN_MEMORY = 4  # different batches, because a step on the same one again would find it in the cache
#: Input channels, output channels and side of the feature maps of the tried convolutions, at 10 frames.
CONVOLUTIONS = ((64, 64, 56), (128, 128, 28), (256, 256, 14))


def main() -> None:
    args = options()
    device = torch.device(args.device)
    found, rows, rates = {}, [], {}
    with tempfile.TemporaryDirectory(prefix="kdtune-gpu-") as folder:
        stored = ((128 * args.size + 56) // 112, (171 * args.size + 56) // 112)
        # 9 of 11 groups are training videos; as many are needed as the largest batch has tuples.
        clips = -(-max(args.batches) * 2 // (9 * len(CLASSES)))
        say("rendering videos …")
        videos = rendered_clips(Path(folder) / "videos", stored, classes=CLASSES, groups=11, clips=clips)
        for precision, memory_format in product(args.precision, args.memory_format):
            for backbone, batch in product(args.networks, args.batches):
                config = trial(args, backbone, batch, precision, memory_format)
                make_deterministic(config)
                if (precision, memory_format) not in rates:
                    rates[precision, memory_format] = measured_rates(config, device, args.rates)
                say(f"{backbone}, batch {batch}, {precision}, {memory_format} …")
                samples = Samples(config, TrialData.of(config, videos), device, args.workers)
                row = measure(samples, args.rounds, args.steps)
                rows.append(
                    {"backbone": backbone, "batch": batch, "precision": precision, "format": memory_format, **row}
                )
                found = machine(config, args.device)
    print("\n" + machine_line(found))
    print_rates(rates)
    print_steps(rows, rates)
    listed = [{"precision": p, "format": f, **values} for (p, f), values in rates.items()]
    shape = {name: getattr(args, name) for name in ("frames", "size", "width", "workers", "steps")}
    write_json(args.out, {"machine": found, **shape, "rates": listed, "rows": rows})


def options() -> Any:
    made = parser(__doc__)
    made.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    made.add_argument("--networks", nargs="+", default=["r3d", "r21d", "c3d"])
    made.add_argument("--batches", nargs="+", type=int, default=[16, 64], help="tuples a step (default: 16 64)")
    made.add_argument("--precision", nargs="+", choices=("fp32", "tf32", "bf16"), default=["fp32", "tf32", "bf16"])
    made.add_argument("--memory-format", nargs="+", default=["contiguous", "channels_last"])
    for name, default, what in (
        ("frames", 10, "T, frames in a clip"),
        ("size", 112, "side of a clip in pixels"),
        ("width", 64, "channels of a network's first stage"),
        ("workers", 8, "processes that read ahead"),
        ("rounds", 5, "turns of each way"),
        ("steps", 20, "steps of a turn"),
        ("rates", 8192, "side of the matrices whose product is measured"),
    ):
        made.add_argument(f"--{name}", type=int, default=default, help=f"{what} (default: {default})")
    return made.parse_args()


def trial(args: Any, backbone: str, batch: int, precision: str, memory_format: str) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "data": {"dataset": "synthetic"},
            "clip": {"frames": args.frames, "size": args.size},
            "student": {"backbone": backbone, "width": args.width},
            "loss": {"contrast": "in_batch"},
            "optimizer": {"batch": batch},
            "epochs": 10_000,  # never over while we measure
            "stages": {"late": 10_000},
            "precision": precision,
            "memory_format": memory_format,
        }
    )


# ---- measuring -------------------------------------------------------------------------------------------------------


def measure(samples: Samples, rounds: int, steps: int) -> dict[str, Any]:
    """Return the seconds of a step in each way and round, and the FLOPs of one step."""
    config, device = samples.config, samples.device
    network = build_network(config, samples.data.classes).to(device).train()
    optimizer = standing_still(config, network)
    read = samples.training(1, 0)
    in_memory = list(islice(read, IN_MEMORY))
    with FlopCounterMode(display=False) as counter:
        train(config, network, optimizer, in_memory[:1])
    ways: dict[str, Iterable[SampleBatch]] = {"with input": read, "in memory": cycle(in_memory)}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for batches in ways.values():
        train(config, network, optimizer, islice(batches, WARM_UP))
    for _ in range(rounds):
        for way, batches in ways.items():
            took = timed(lambda batches=batches: train(config, network, optimizer, islice(batches, steps)), device)
            seconds[way].append(took / steps)
    return {"flop": counter.get_total_flops(), "step_s": seconds}


def train(config: TrialConfig, network: PclNetwork, optimizer: SGD, batches: Iterable[SampleBatch]) -> None:
    for batch in batches:
        training_step(config, network, optimizer, batch)


def timed(work: Callable[[], object], device: torch.device) -> float:
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    started = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - started


def measured_rates(config: TrialConfig, device: torch.device, side: int) -> dict[str, float]:
    """Return the FLOP/s of a product of side × side matrices and of the best convolution, in the trial's precision."""
    kind = torch.bfloat16 if config.precision == "bf16" else torch.float32
    layout = torch.channels_last_3d if config.memory_format == "channels_last" else torch.contiguous_format
    left = torch.randn(side, side, device=device, dtype=kind)
    rates = {"matrix": 2 * side**3 / best_of(lambda: left @ left, device), "convolution": 0.0}
    for inputs, outputs, size in CONVOLUTIONS if device.type == "cuda" else CONVOLUTIONS[-1:]:
        x = torch.randn(16, inputs, 10, size, size, device=device, dtype=kind).contiguous(memory_format=layout)
        weight = torch.randn(outputs, inputs, 3, 3, 3, device=device, dtype=kind).contiguous(memory_format=layout)
        flop = 2 * 16 * inputs * outputs * 27 * 10 * size**2
        seconds = best_of(lambda x=x, weight=weight: conv3d(x, weight, padding=1), device)
        rates["convolution"] = max(rates["convolution"], flop / seconds)
    return rates


def best_of(work: Callable[[], object], device: torch.device, times: int = 10) -> float:
    for _ in range(WARM_UP):
        work()
    return min(timed(work, device) for _ in range(times))


# ---- printing --------------------------------------------------------------------------------------------------------


def print_rates(rates: dict[tuple[str, str], dict[str, float]]) -> None:
    lines = [(*key, *(f"{value / 1e12:.3g}" for value in values.values())) for key, values in rates.items()]
    print_table(("precision", "memory format", "matrix product, TFLOP/s", "convolution, TFLOP/s"), lines)


def print_steps(rows: list[dict[str, Any]], rates: dict[tuple[str, str], dict[str, float]]) -> None:
    lines = []
    for row in rows:
        with_input, in_memory = row["step_s"]["with input"], row["step_s"]["in memory"]
        step, reached = statistics.median(with_input), rates[row["precision"], row["format"]]
        flops = row["flop"] / step
        waiting = [1 - ratio for ratio in ratios(in_memory, with_input)]
        lines.append(
            (
                *(row[name] for name in ("backbone", "batch", "precision", "format")),
                f"{1e3 * step:.1f}",
                f"{row['batch'] / step:,.0f}",
                f"{flops / 1e12:.3g}",
                *(f"{flops / reached[kind]:.0%}" for kind in ("convolution", "matrix")),
                spread([100 * share for share in waiting], 1),
            )
        )
    head = ("network", "batch", "precision", "memory format", "step, ms", "tuples/s", "TFLOP/s")
    print_table((*head, "of convolution rate", "of matrix rate", "waiting for input, %"), lines)


if __name__ == "__main__":
    main()
