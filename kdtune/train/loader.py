"""A trial's training batches, drawn and read ahead by processes of their own, or here.

How many processes there are changes no bit: a batch is a pure function of its epoch and samples (DESIGN 4.1), and
torch's DataLoader hands batches over in the order in which they were asked for.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from kdtune.clips.dataset import TrialData
from kdtune.clips.draws import shuffled
from kdtune.config.trial import TrialConfig
from kdtune.train.inputs import RawBatch, batches, read_training

#: (epoch, (B,) samples)
Place = tuple[int, np.ndarray]


class _Batches(Dataset[RawBatch]):
    """Any batch by its place."""

    def __init__(self, config: TrialConfig, data: TrialData) -> None:
        self.config, self.data = config, data

    def __getitem__(self, place: Place) -> RawBatch:
        return read_training(self.config, self.data, *place)


def steps_of_an_epoch(config: TrialConfig, data: TrialData) -> int:
    return len(batches(data.train, config.optimizer.batch))


def training_batches(
    config: TrialConfig, data: TrialData, epoch: int, step: int, workers: int, pinned: bool = False
) -> Iterator[RawBatch]:
    """Every batch of the trial in order, from step `step` of `epoch` (counted from 0 and from 1) to the last epoch's.

    With `workers` 0 a batch is read when it is asked for; else so many processes read two batches each ahead. `pinned`
    puts the clips into page-locked memory, from which a GPU copies them while it computes.
    """
    loader = DataLoader(
        _Batches(config, data),
        sampler=training_places(config, data, epoch, step),
        batch_size=None,  # a place is a whole batch
        num_workers=workers,
        pin_memory=pinned,
        worker_init_fn=_leave_interrupts_to_the_trainer,
        generator=torch.Generator(),  # it would seed workers that draw nothing from torch's global one
    )
    return iter(loader)


def training_places(config: TrialConfig, data: TrialData, epoch: int, step: int) -> Iterator[Place]:
    """Where the batches of `training_batches` stand."""
    while epoch <= config.epochs:
        order = shuffled(len(data.order), seed=config.seed, epoch=epoch)
        for samples in batches(order[order < data.size], config.optimizer.batch)[step:]:
            yield epoch, samples
        epoch, step = epoch + 1, 0


def _leave_interrupts_to_the_trainer(_: int) -> None:
    """Ctrl-C reaches every process of a terminal; the trainer ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
