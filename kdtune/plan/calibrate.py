"""`plan --measure`: time a few training steps of each shape on the real frames. No trial is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import islice, pairwise
from statistics import median

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from kdtune.clips.dataset import TrialData
from kdtune.config.trial import TrialConfig
from kdtune.plan.costs import shape_words, target_shapes
from kdtune.plan.speeds import Speed
from kdtune.store.files import write_json
from kdtune.train.initial import initial_state
from kdtune.train.measuring.cost import training_step
from kdtune.train.prepared import Prepared
from kdtune.train.profile import make_deterministic, profile
from kdtune.train.samples import Samples

#: Timed steps after the first one: maximum, and the seconds after which fewer are enough.
STEPS, STEPS_S = 30, 2.0


def measure(
    shapes: Mapping[str, TrialConfig],
    prepared: Prepared,
    device: torch.device,
    workers: int,
    say: Callable[[str], object],
) -> None:
    """Time a trial of each shape (digest → trial) and write the speeds to the store."""
    for i, (shape, config) in enumerate(shapes.items(), 1):
        say(f"measuring {i} of {len(shapes)}: {shape_words(config)}")
        write_json(prepared.store.measured(shape), asdict(_speed(config, prepared, device, workers)))


def _speed(config: TrialConfig, prepared: Prepared, device: torch.device, workers: int) -> Speed:
    make_deterministic(config)
    data = TrialData.of(config, prepared.clips(config))
    state = initial_state(config, data, None, device)
    # Their values do not affect the time, so no teacher is needed.
    shapes = target_shapes(config, data.classes)
    targets = {name: torch.zeros(1, *shape, device=device).expand(data.size, *shape) for name, shape in shapes.items()}
    batches = Samples(config, data, device, workers).training(1, 0)
    ends: list[float] = []
    for batch in islice(batches, STEPS + 1):
        training_step(state, config, batch, targets)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        ends.append(time.perf_counter())
        if len(ends) > 1 and ends[-1] - ends[0] >= STEPS_S:
            break
    saved = tree_leaves({name: part for name, part in state.state_dicts().items() if name != "bank"})
    return Speed(
        device=profile(config, device, data.clips)["device"],
        sample_s=median(after - before for before, after in pairwise(ends)) / min(config.optimizer.batch, data.size),
        checkpoint_bytes=sum(leaf.nbytes for leaf in saved if isinstance(leaf, Tensor)),
    )
