"""Draw and read a trial's training batches, ahead in worker processes or in this one.

The number of processes changes no bit: a batch is a pure function of its epoch and samples (DESIGN 4.1), and torch's
DataLoader returns batches in the order in which they were requested.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from kdtune.clips.dataset import TrialData
from kdtune.clips.draws import shuffled
from kdtune.config.trial import TrialConfig
from kdtune.processes import end_with_parent, fork_server, isolated_start
from kdtune.train.inputs import RawBatch, batches, read_training

#: (epoch, (B,) samples)
Place = tuple[int, np.ndarray]


class _Batches(Dataset[RawBatch]):
    """Maps a place to its batch."""

    def __init__(self, config: TrialConfig, data: TrialData) -> None:
        self.config, self.data = config, data

    def __getitem__(self, place: Place) -> RawBatch:
        return read_training(self.config, self.data, *place)


def steps_of_an_epoch(config: TrialConfig, data: TrialData) -> int:
    """Return the number of training steps in an epoch."""
    return len(batches(data.train, config.optimizer.batch))


def training_batches(
    config: TrialConfig, data: TrialData, epoch: int, step: int, workers: int, pinned: bool = False
) -> Iterator[RawBatch]:
    """Return the trial's batches in order, from step `step` (from 0) of `epoch` (from 1) to the last epoch's last.

    With `workers` 0, a batch is read when requested; otherwise each of `workers` processes reads two batches ahead.
    `pinned` puts the clips into page-locked memory, from which a GPU copies while it computes.
    """
    loader = DataLoader(
        _Batches(config, data),
        sampler=training_places(config, data, epoch, step),
        batch_size=None,  # a place is a whole batch
        num_workers=workers,
        pin_memory=pinned,
        multiprocessing_context=fork_server(__name__) if workers > 0 else None,
        worker_init_fn=end_with_parent,
        generator=torch.Generator(),  # else DataLoader advances torch's global generator to seed the workers
    )
    if workers == 0:
        return iter(loader)
    with isolated_start():
        return iter(loader)


def training_places(config: TrialConfig, data: TrialData, epoch: int, step: int) -> Iterator[Place]:
    """Yield the places of the batches of `training_batches`."""
    while epoch <= config.epochs:
        order = shuffled(len(data.order), seed=config.seed, epoch=epoch)
        for samples in batches(order[order < data.size], config.optimizer.batch)[step:]:
            yield epoch, samples
        epoch, step = epoch + 1, 0
