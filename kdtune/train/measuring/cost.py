"""Measure what a trial costs, once per process for all trials of equal cost. config/metrics.py defines the figures.

The measurement leaves the trial alone: it uses a fresh network of the same configuration, since weights do not affect
cost. Each run performs the same operations, so `operators.py` can watch it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.autograd.profiler import profile
from torch.autograd.profiler_util import MEMORY_EVENT_NAME
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from kdtune.clips.dataset import TrialData
from kdtune.config.key import digest
from kdtune.config.shape import shape_of
from kdtune.config.trial import TrialConfig
from kdtune.models.heads import PclNetwork
from kdtune.scoped import environment
from kdtune.store.contents import EpochRecord
from kdtune.train.inputs import batches, training_samples
from kdtune.train.samples import Samples, TrainingBatch
from kdtune.train.state import TrialState
from kdtune.train.targets import Targets
from kdtune.train.trial import forward

#: Timed passes of one clip.
RUNS = 5
_KINETO_LOG = "KINETO_LOG_LEVEL"


def cost_digest(config: TrialConfig, data: TrialData, device: torch.device) -> str:
    """Return a digest that is equal for trials of equal cost: their shape and the size of their data."""
    return digest([shape_of(config, device.type), data.size, data.classes])


def trial_cost(fresh: TrialState, samples: Samples, targets: Targets | None) -> dict[str, float]:
    """Return a trained trial's cost without its seconds per epoch: parameters, gmac, peak_memory (MiB), clip_ms.

    torch must be set as for the trial (make_deterministic). `fresh` is a state before the first step; the measurement
    advances it by two steps.
    """
    config, data, device = samples.config, samples.data, samples.device
    network = fresh.network
    epoch_targets = targets.epoch(config.epochs) if targets is not None else {}
    # The size of the largest step. Made without the cache, whose batches belong to the trials.
    at = np.arange(max(len(part) for part in batches(data.train, config.optimizer.batch)))
    made = training_samples(config, data, 1, at, device)
    batch = TrainingBatch(made.clips, made.labels, at, digest="")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        peak = step_bytes(fresh, config, batch, epoch_targets)
        multiplications, seconds = clip_cost(network, batch.clips[:1, 0])
    return {
        "parameters": sum(p.numel() for part in (network.backbone, network.head) for p in part.parameters()),
        "gmac": multiplications / 1e9,
        "peak_memory": peak / 2**20,
        "clip_ms": 1000 * seconds,
    }


def epoch_seconds(rows: Sequence[EpochRecord]) -> float:
    """Return the median seconds of the epochs without an evaluation, or of all epochs if each has one."""
    bare = [row["seconds"] for row in rows if "evaluation" not in row]
    return median(bare or [row["seconds"] for row in rows])


# ---- one clip --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def clip_cost(network: PclNetwork, clip: Tensor) -> tuple[int, float]:
    """Pass a clip (1, 3, T, H, W) through the backbone as an evaluation does.

    Returns its multiply-accumulates (convolutions and matrix products, without biases) and its median seconds.
    """
    network.eval()
    with FlopCounterMode(display=False) as counter:  # the first pass is slower and is not timed
        network.clip_features(clip)
    seconds = []
    for _ in range(RUNS):
        _synchronize(clip.device)
        started = time.perf_counter()
        network.clip_features(clip)
        _synchronize(clip.device)
        seconds.append(time.perf_counter() - started)
    return counter.get_total_flops() // 2, median(seconds)


def _synchronize(device: torch.device) -> None:
    """Wait for the kernels queued on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ---- one training step -----------------------------------------------------------------------------------------------


def step_bytes(state: TrialState, config: TrialConfig, batch: TrainingBatch, targets: Mapping[str, Tensor]) -> int:
    """Return the peak bytes of device memory of a training step on `batch`, with `targets` those of its epoch."""

    def step(batch: TrainingBatch) -> None:
        training_step(state, config, batch, targets)

    # A small step first: the measured one then finds momentum and gradients, as every step but a trial's first does.
    small = replace(batch, clips=batch.clips[:2], labels=batch.labels[:2], samples=batch.samples[:2])
    if batch.clips.is_cuda:
        step(small)  # not counted: it may allocate workspaces, which the process keeps
        return _bytes_before(state, batch, targets) + _allocated_on_cuda(lambda: step(batch), batch.clips.device)

    def both() -> None:
        step(small)
        step(batch)
        state.optimizer.zero_grad(set_to_none=True)
        state.optimizer.state.clear()

    return _bytes_before(state, batch, targets) + allocated_on_cpu(both)


def training_step(state: TrialState, config: TrialConfig, batch: TrainingBatch, targets: Mapping[str, Tensor]) -> None:
    """Train `state` on one batch of the first epoch, as the trainer does."""
    total = forward(state, config, 1, batch, targets).total
    state.optimizer.zero_grad(set_to_none=True)
    total.backward()
    state.optimizer.step()


def _bytes_before(state: TrialState, batch: TrainingBatch, targets: Mapping[str, Tensor]) -> int:
    """Return the bytes that are in memory before a step: state, gradients, batch and targets, each storage once."""
    gradients = [p.grad for group in state.optimizer.param_groups for p in group["params"]]
    leaves = tree_leaves([state.state_dicts(), gradients, batch.clips, batch.labels, dict(targets)])
    storages = [leaf.untyped_storage() for leaf in leaves if isinstance(leaf, Tensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _allocated_on_cuda(run: Callable[[], object], device: torch.device) -> int:
    """Return the peak bytes that `run` allocates."""
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before


def allocated_on_cpu(run: Callable[[], object]) -> int:
    """Return the peak bytes that `run` allocates with torch's CPU allocator in this thread; `run` must free them all.

    torch keeps no such count for the CPU, but reports every allocation to its profiler. Earlier allocations do not
    count.
    """
    # torch's profiler would write to standard error that it begins, ends and finds no GPU. It reads this once.
    quiet = {_KINETO_LOG: os.environ.get(_KINETO_LOG, "99")}
    with environment(quiet), profile(profile_memory=True, use_kineto=True) as watched:
        run()
    assert watched.kineto_results is not None
    changes = [event for event in watched.kineto_results.events() if event.name() == MEMORY_EVENT_NAME]
    changes.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in changes), default=0)
