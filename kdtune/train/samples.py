"""The batches of a trial: prepared ahead, and cached from stage to stage and from trial to trial.

A batch is a pure function of its stream (data, clip, augmentation, seed …), its epoch and its samples, so making it
now, making it ahead or finding it in the cache changes no bit. Trials of one sweep mostly share their stream: λ, τ, α
and the teacher change no sample. On a CPU, augmenting a small clip takes a large share of a training step, so a worker
caches what it has prepared, as far as its memory allows. On a GPU augmentation is cheap: the next batch is read, copied
from pinned memory and augmented on its own CUDA stream while the current one trains.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from kdtune.clips.dataset import TrialData
from kdtune.clips.machine import GIB, cores, memory_bytes
from kdtune.config.key import canonical, digest
from kdtune.config.trial import TrialConfig
from kdtune.train.inputs import (
    RawBatch,
    SampleBatch,
    evaluation_draw,
    evaluation_samples,
    evenly_spaced_clips,
    on_device,
    read_training,
)
from kdtune.train.loader import training_batches, training_places


@dataclass(frozen=True)
class TrainingBatch(SampleBatch):
    """The samples of one training step."""

    samples: np.ndarray  # (B,) positions in the one order
    digest: str  # SHA-256 over everything that was drawn


Made = TypeVar("Made", Tensor, SampleBatch, TrainingBatch)


class SampleCache:
    """Prepared batches in memory, at most `budget` bytes (see default_budget). What does not fit is made each time.

    A full cache drops the least recently used stream, but never the requesting one: a stream that is too large would
    evict its own batches before their next use.
    """

    def __init__(self, budget: int | None = None) -> None:
        self.budget, self.bytes = default_budget() if budget is None else budget, 0
        self._streams: OrderedDict[str, dict[Hashable, Tensor | SampleBatch]] = OrderedDict()

    def get(self, stream: str, name: Hashable, make: Callable[[], Made]) -> Made:
        """Return the batch `name` of a stream; make it if it is not cached."""
        batches = self._streams.setdefault(stream, {})
        self._streams.move_to_end(stream)
        if name in batches:
            return batches[name]  # type: ignore[return-value]
        made = make()
        size = _bytes(made)
        if size > self.budget:
            return made
        while self.bytes + size > self.budget and len(self._streams) > 1:
            _, dropped = self._streams.popitem(last=False)
            self.bytes -= sum(map(_bytes, dropped.values()))
        if self.bytes + size <= self.budget:
            batches[name] = made
            self.bytes += size
        return made


def _bytes(made: Tensor | SampleBatch) -> int:
    return (made if isinstance(made, Tensor) else made.clips).nbytes


def default_budget() -> int:
    """Return the bytes that a worker may cache: at most 1 GiB, and a quarter of memory shared by one worker a core."""
    return min(GIB, memory_bytes() // (4 * cores()))


def stream_digest(config: TrialConfig, data: TrialData, *also: str) -> str:
    """Return a digest of what samples are made from, except their epoch and their place in the one order.

    `also` names further sections and fields of the configuration to include, such as the seed.
    """
    form = canonical(config)
    del form["data"]["fraction"]
    parts = {name: form.get(name) for name in ("data", "clip", "pretext", "augment", *also)}
    return digest(parts | {"target": config.loss.target, "frames": data.clips.digest})


class Samples:
    """The samples of one trial on one device."""

    def __init__(
        self,
        config: TrialConfig,
        data: TrialData,
        device: torch.device,
        workers: int = 0,
        cache: SampleCache | None = None,
    ) -> None:
        self.config, self.data, self.device, self.workers = config, data, device, workers
        # A GPU and reader processes prepare batches while the trainer trains: a cache would gain nothing.
        self.cache = cache if cache is not None and device.type == "cpu" and workers == 0 else SampleCache(0)
        # Threads and precision change no draw, but may change the last bits of a prepared batch.
        self._training = stream_digest(config, data, "seed", "threads", "precision")
        self._evaluation = stream_digest(config, data, "evaluation", "threads", "precision")

    def training(self, epoch: int, step: int) -> Iterator[TrainingBatch]:
        """Yield the trial's batches in order, from step `step` (from 0) of `epoch` (from 1) to the last."""
        if self.device.type == "cuda":
            raws = training_batches(self.config, self.data, epoch, step, self.workers, pinned=True)
            yield from map(partial(self._prepare_beside, torch.cuda.Stream(self.device)), raws)
        elif self.workers > 0:
            yield from map(self._prepare, training_batches(self.config, self.data, epoch, step, self.workers))
        else:
            for place in training_places(self.config, self.data, epoch, step):
                name = (place[0], place[1].tobytes())
                yield self.cache.get(self._training, name, partial(self._make, *place))

    def evaluation(self, rows: np.ndarray, epoch: int = 0) -> SampleBatch:
        """Return one sample for each of `rows` (B,) of the store after `epoch` (see `evaluation_samples`)."""
        draw = evaluation_draw(self.config, epoch)
        make = partial(evaluation_samples, self.config, self.data, rows, self.device, draw)
        return self.cache.get(self._evaluation, ("one each", draw, rows.tobytes()), make)

    def evenly_spaced(self, rows: np.ndarray) -> Tensor:
        """Return the evenly spaced clips of `rows` (B,) of the store (see `evenly_spaced_clips`)."""
        make = partial(evenly_spaced_clips, self.config, self.data, rows, self.device)
        return self.cache.get(self._evaluation, ("evenly spaced", rows.tobytes()), make)

    def _make(self, epoch: int, samples: np.ndarray) -> TrainingBatch:
        return self._prepare(read_training(self.config, self.data, epoch, samples))

    def _prepare(self, raw: RawBatch) -> TrainingBatch:
        batch = on_device(self.config, self.data, raw, self.device)
        return TrainingBatch(batch.clips, batch.labels, raw.samples, raw.digest)

    def _prepare_beside(self, side: torch.cuda.Stream, raw: RawBatch) -> TrainingBatch:
        """Prepare a batch on the stream `side`, beside the current step. The next step waits for it."""
        training = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(side):
            batch = self._prepare(raw)
        training.wait_stream(side)
        for tensor in (batch.clips, batch.labels):
            tensor.record_stream(training)  # else their memory could be reused before training has read it
        return batch
