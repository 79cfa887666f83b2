"""What a trial's networks are fed: batches prepared ahead, and kept from stage to stage and from trial to trial.

A batch is a pure function of its stream (data, clip, augmentation, seed …), its epoch and its samples, so whether it is
made now, made ahead or found changes no bit. Trials of one sweep mostly share their stream: λ, τ, α and the teacher
change no sample. On a CPU, where augmenting a small clip costs a good part of training on it, a worker therefore keeps
what it has prepared, as far as its memory allows. On a GPU augmentation is cheap: there the next batch is read, copied
from pinned memory and augmented on a stream of its own while the current one trains.
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
    """A step's samples."""

    samples: np.ndarray  # (B,) positions in the one order
    digest: str  # of everything that was drawn


Made = TypeVar("Made", Tensor, SampleBatch, TrainingBatch)


class Kept:
    """Prepared batches in memory, at most `budget` bytes (see default_budget). What does not fit is made each time.

    When it is full, the streams that nobody asked for longest make room; the stream that asks never does, for one that
    is too large would only push its own batches out before they are asked for again.
    """

    def __init__(self, budget: int | None = None) -> None:
        self.budget, self.bytes = default_budget() if budget is None else budget, 0
        self._streams: OrderedDict[str, dict[Hashable, Tensor | SampleBatch]] = OrderedDict()

    def get(self, stream: str, name: Hashable, make: Callable[[], Made]) -> Made:
        """The batch of this name, made where it is not there."""
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
    """Bytes that a worker keeps: at most 1 GiB, and a quarter of the memory for as many workers as there are cores."""
    return min(GIB, memory_bytes() // (4 * cores()))


def stream_digest(config: TrialConfig, data: TrialData, *also: str) -> str:
    """Names what samples are made from: everything but their epoch, their place in the one order and, unless `also`
    names it, the seed."""
    form = canonical(config)
    del form["data"]["fraction"]
    parts = {name: form.get(name) for name in ("data", "clip", "pretext", "augment", *also)}
    return digest(parts | {"target": config.loss.target, "frames": data.clips.digest})


class Samples:
    """The samples of one trial on one device."""

    def __init__(
        self, config: TrialConfig, data: TrialData, device: torch.device, workers: int = 0, kept: Kept | None = None
    ) -> None:
        self.config, self.data, self.device, self.workers = config, data, device, workers
        # A GPU, and processes that read ahead, prepare while the trainer trains: keeping would gain nothing there.
        self.kept = kept if kept is not None and device.type == "cpu" and workers == 0 else Kept(0)
        # Threads and precision change no draw, but may change the last bit of what is made of it.
        self._training = stream_digest(config, data, "seed", "threads", "precision")
        self._evaluation = stream_digest(config, data, "evaluation", "threads", "precision")

    def training(self, epoch: int, step: int) -> Iterator[TrainingBatch]:
        """Every batch of the trial in order, from step `step` of `epoch` (counted from 0 and from 1) to the last."""
        if self.device.type == "cuda":
            raws = training_batches(self.config, self.data, epoch, step, self.workers, pinned=True)
            yield from map(partial(self._prepare_beside, torch.cuda.Stream(self.device)), raws)
        elif self.workers > 0:
            yield from map(self._prepare, training_batches(self.config, self.data, epoch, step, self.workers))
        else:
            for place in training_places(self.config, self.data, epoch, step):
                name = (place[0], place[1].tobytes())
                yield self.kept.get(self._training, name, partial(self._make, *place))

    def evaluation(self, rows: np.ndarray, epoch: int = 0) -> SampleBatch:
        """One sample of each of `rows` (B,) of the store after `epoch`, as `evaluation_samples`."""
        draw = evaluation_draw(self.config, epoch)
        make = partial(evaluation_samples, self.config, self.data, rows, self.device, draw)
        return self.kept.get(self._evaluation, ("one each", draw, rows.tobytes()), make)

    def evenly_spaced(self, rows: np.ndarray) -> Tensor:
        """Clips of each of `rows` (B,) of the store, as `evenly_spaced_clips`."""
        make = partial(evenly_spaced_clips, self.config, self.data, rows, self.device)
        return self.kept.get(self._evaluation, ("evenly spaced", rows.tobytes()), make)

    def _make(self, epoch: int, samples: np.ndarray) -> TrainingBatch:
        return self._prepare(read_training(self.config, self.data, epoch, samples))

    def _prepare(self, raw: RawBatch) -> TrainingBatch:
        batch = on_device(self.config, self.data, raw, self.device)
        return TrainingBatch(batch.clips, batch.labels, raw.samples, raw.digest)

    def _prepare_beside(self, side: torch.cuda.Stream, raw: RawBatch) -> TrainingBatch:
        """Queued on the stream `side`, where it runs beside the step that was queued before; the next one waits."""
        training = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(side):
            batch = self._prepare(raw)
        training.wait_stream(side)
        for tensor in (batch.clips, batch.labels):
            tensor.record_stream(training)  # their memory must not be given away before training has read it
        return batch
