"""What a trial costs: measured when it is trained, once a process for all trials that are alike. What each figure is:
config/metrics.py.

Nothing of the trial is touched: a fresh network of its configuration is measured, for weights make no difference. What
it does is the same each time, so that `operators.py` may watch it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import accumulate
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.profiler import profile
from torch.autograd.profiler_util import MEMORY_EVENT_NAME
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from kdtune.clips.dataset import TrialData
from kdtune.config.key import canonical, digest
from kdtune.config.metrics import OfCost
from kdtune.config.schedules import largest
from kdtune.config.trial import TrialConfig
from kdtune.models.heads import PclNetwork
from kdtune.train.inputs import batches, training_samples
from kdtune.train.samples import Samples, TrainingBatch
from kdtune.train.state import TrialState
from kdtune.train.targets import Targets
from kdtune.train.trial import forward

#: Timed passes of one clip.
RUNS = 5
#: Of the loss: how large they are costs nothing, that they are there does.
SWITCHES = ("alpha", "lambda", "beta", "gamma")


def alike(config: TrialConfig, data: TrialData, device: torch.device) -> str:
    """A digest that trials which cost the same share: of the canonical form without seed and τ, with each factor of the
    loss no more than there or not there; of how many data there are, and of what network the teacher is."""
    form = canonical(config)
    del form["seed"], form["data"]
    form["loss"].pop("tau", None)
    form["loss"] |= {name: largest(form["loss"][name]) > 0 for name in SWITCHES if name in form["loss"]}
    teacher = canonical(config.teacher)["student"] if config.distils and config.teacher is not None else None
    return digest([form, data.size, data.classes, teacher, device.type])


def trial_cost(fresh: TrialState, samples: Samples, targets: Targets | None) -> dict[OfCost, float]:
    """The figures of a trained trial but for its epochs' seconds, with torch set as the trial sets it
    (make_deterministic).

    `fresh` is the trial's state before its first step; afterwards it has taken two.
    """
    config, data, device = samples.config, samples.data, samples.device
    network = fresh.network
    taught = targets.epoch(config.epochs) if targets is not None else {}
    # As many as in the largest step. Made anew: what is kept belongs to the trials.
    at = np.arange(max(len(part) for part in batches(data.train, config.optimizer.batch)))
    made = training_samples(config, data, 1, at, device)
    batch = TrainingBatch(made.clips, made.labels, at, digest="")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        peak = step_bytes(fresh, config, batch, taught)
        multiplications, seconds = clip_cost(network, batch.clips[:1, 0])
    return {
        "parameters": sum(p.numel() for part in (network.backbone, network.head) for p in part.parameters()),
        "gmac": multiplications / 1e9,
        "peak_memory": peak / 2**20,
        "clip_ms": 1000 * seconds,
    }


def epoch_seconds(rows: list[dict[str, Any]]) -> float:
    """Median of the epochs that nothing was evaluated after; of all where there is no such one."""
    bare = [row["seconds"] for row in rows if "evaluation" not in row]
    return median(bare or [row["seconds"] for row in rows])


# ---- one clip --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def clip_cost(network: PclNetwork, clip: Tensor) -> tuple[int, float]:
    """(1, 3, T, H, W) through the backbone, as in an evaluation: multiply-accumulates, and the median of its seconds.

    Counted are convolutions and matrix products, without biases.
    """
    network.eval()
    with FlopCounterMode(display=False) as counter:  # the first pass takes longer, and is not timed
        network.clip_features(clip)
    seconds = []
    for _ in range(RUNS):
        _finish(clip.device)
        started = time.perf_counter()
        network.clip_features(clip)
        _finish(clip.device)
        seconds.append(time.perf_counter() - started)
    return counter.get_total_flops() // 2, median(seconds)


def _finish(device: torch.device) -> None:
    """Wait for what was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ---- one training step -----------------------------------------------------------------------------------------------


def step_bytes(state: TrialState, config: TrialConfig, batch: TrainingBatch, taught: Mapping[str, Tensor]) -> int:
    """Bytes of the device's memory at the peak of a training step on `batch`, `taught` being an epoch's targets."""

    def step(batch: TrainingBatch) -> None:
        total = forward(state, config, 1, batch, taught).total
        state.optimizer.zero_grad(set_to_none=True)
        total.backward()
        state.optimizer.step()

    # A small one first: like every step but the trial's first one, the other then finds momentum and gradients there.
    small = replace(batch, clips=batch.clips[:2], labels=batch.labels[:2], samples=batch.samples[:2])
    if batch.clips.is_cuda:
        step(small)  # not counted: it may also allocate workspaces, which stay with the process
        return _held(state, batch, taught) + _allocated_on_cuda(lambda: step(batch), batch.clips.device)

    def both() -> None:
        step(small)
        step(batch)
        state.optimizer.zero_grad(set_to_none=True)
        state.optimizer.state.clear()

    return _held(state, batch, taught) + allocated_on_cpu(both)


def _held(state: TrialState, batch: TrainingBatch, taught: Mapping[str, Tensor]) -> int:
    """Bytes of all that a step finds in memory, each storage once."""
    gradients = [p.grad for group in state.optimizer.param_groups for p in group["params"]]
    leaves = tree_leaves([state.state_dicts(), gradients, batch.clips, batch.labels, dict(taught)])
    storages = [leaf.untyped_storage() for leaf in leaves if isinstance(leaf, Tensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _allocated_on_cuda(run: Callable[[], object], device: torch.device) -> int:
    """Bytes that `run` allocates at its peak."""
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before


def allocated_on_cpu(run: Callable[[], object]) -> int:
    """Bytes that `run`, which frees them all, allocates at its peak through torch's allocator in this thread.

    torch keeps no such count for the CPU, but tells its profiler of all that is allocated, and freed, while it watches.
    What was allocated before plays no part.
    """
    # Else it says on stderr when it begins and ends, and that there is no GPU. Read at its first use.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(profile_memory=True, use_kineto=True) as watched:
        run()
    assert watched.kineto_results is not None
    changes = [event for event in watched.kineto_results.events() if event.name() == MEMORY_EVENT_NAME]
    changes.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in changes), default=0)
