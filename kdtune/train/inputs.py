"""Turn sample numbers into network inputs: draw and read (in any process), augment, transform, take residuals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdtune.clips.augment import augment, residual
from kdtune.clips.dataset import TrialData
from kdtune.clips.frames.store import ClipStore
from kdtune.clips.pretext import QUESTIONS, each_middle, transform_middle
from kdtune.clips.tuples import (
    ClipDraws,
    EachLabelDraws,
    Frames,
    TupleDraws,
    draw_clips,
    draw_each_label,
    draw_tuples,
    read_clips,
)
from kdtune.clips.view import EdgePadded, draws_for_view
from kdtune.config.trial import TrialConfig

#: Evaluations use the same samples in every trial, whatever its seed.
EVALUATION_SEED = 0


@dataclass(frozen=True)
class RawBatch:
    """B samples as drawn and read by a loader process."""

    samples: np.ndarray  # (B,) positions in the one order
    rows: np.ndarray  # (B,) rows of the clip store
    draws: ClipDraws
    clips: Tensor  # (B, n, T, H, W, 3) uint8: sample, clip (see ClipDraws), frame, height, width, channel

    def pin_memory(self) -> RawBatch:
        """Return a copy with the clips in page-locked memory; torch's DataLoader calls this."""
        return replace(self, clips=self.clips.pin_memory())

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over everything that was drawn: the same on every machine and device."""
        sha = hashlib.sha256()

        def add(name: str, value: Any) -> None:
            if is_dataclass(value):
                for field in fields(value):
                    add(f"{name}.{field.name}", getattr(value, field.name))
            elif isinstance(value, np.ndarray):
                sha.update(f"{name}:{value.dtype.str}:{value.shape}".encode())
                sha.update(np.ascontiguousarray(value).tobytes())
            else:
                sha.update(f"{name}:{value!r}".encode())

        for name, value in (("samples", self.samples), ("rows", self.rows), ("draws", self.draws)):
            add(name, value)
        return sha.hexdigest()


@dataclass(frozen=True)
class SampleBatch:
    """B samples ready for a network."""

    clips: Tensor  # (B, n, 3, T, H, W) float32: sample, clip, channel, frame, height, width
    labels: Tensor  # (B,) int64, pretext labels or actions; (B, 5) where a video is asked under each label


def read_training(config: TrialConfig, data: TrialData, epoch: int, samples: np.ndarray) -> RawBatch:
    """Draw and read the samples of one epoch at the positions `samples` (B,) of the one order."""
    return _read(config, data, samples, data.order[samples], _training_draws(config, data, epoch, samples))


def training_samples(
    config: TrialConfig, data: TrialData, epoch: int, samples: np.ndarray, device: torch.device
) -> SampleBatch:
    """Return the augmented samples of one epoch at the positions `samples` (B,) of the one order."""
    return on_device(config, data, read_training(config, data, epoch, samples), device)


def viewed_samples(
    config: TrialConfig,
    view: TrialConfig,
    data: TrialData,
    clips: ClipStore,
    epoch: int,
    samples: np.ndarray,
    device: torch.device,
) -> SampleBatch:
    """Return the samples of `training_samples` in the format of `view`, read from `clips`: its videos at that size."""
    rows = data.order[samples]
    draws = _training_draws(config, data, epoch, samples)
    draws = draws_for_view(draws, config.clip, view.clip, data.lengths[rows])
    read = read_clips(EdgePadded(clips, data.lengths), rows, draws.start, draws.crop, view.clip)
    return on_device(view, data, RawBatch(samples, rows, draws, torch.from_numpy(read)), device)


def evaluation_samples(
    config: TrialConfig, data: TrialData, rows: np.ndarray, device: torch.device, draw: int = 0
) -> SampleBatch:
    """Return what the head is asked about each of `rows` (B,) of the store (see evaluation_questions).

    A `draw` (see evaluation_draw) fixes it in all trials.
    """
    seed, lengths, train = EVALUATION_SEED, data.lengths[rows], config.evaluation.transform == "train"
    draw_samples = draw_each_label if config.asks_each_label else _drawing(config)
    drawn = draw_samples(config, seed=seed, purpose="evaluate", epoch=draw, samples=rows, lengths=lengths, train=train)
    return on_device(config, data, _read(config, data, rows, rows, drawn), device)


def evaluation_questions(config: TrialConfig) -> tuple[tuple[int, ...], ...]:
    """Return the clips of each question about an evaluated video, as places among the clips of its sample.

    A tuple under each of the five labels, or the whole sample.
    """
    return QUESTIONS if config.asks_each_label else (tuple(range(config.clips)),)


def evaluation_draw(config: TrialConfig, epoch: int) -> int:
    """Return the number of the draw that an evaluation after `epoch` uses: 0, or the epoch if evaluation.draws says."""
    anew = config.evaluation.draws == "epoch" and config.evaluation.transform == "train"
    return epoch if anew else 0


def _drawing(config: TrialConfig) -> Callable[..., ClipDraws]:
    return draw_tuples if config.loss.target == "pretext" else draw_clips


def _training_draws(config: TrialConfig, data: TrialData, epoch: int, samples: np.ndarray) -> ClipDraws:
    draw, seed, lengths = _drawing(config), config.seed, data.lengths[data.order[samples]]
    return draw(config, seed=seed, purpose="train", epoch=epoch, samples=samples, lengths=lengths, train=True)


def _read(config: TrialConfig, data: TrialData, samples: np.ndarray, rows: np.ndarray, draws: ClipDraws) -> RawBatch:
    clips = read_clips(data.clips, rows, draws.start, draws.crop, config.clip)
    return RawBatch(samples, rows, draws, torch.from_numpy(clips))


def on_device(config: TrialConfig, data: TrialData, raw: RawBatch, device: torch.device) -> SampleBatch:
    """Move a batch to `device` and apply its draws: augmentation, pretext transform, residual."""
    draws = raw.draws
    clips = augment(raw.clips.to(device, non_blocking=True), draws.colour, config.clip.normalize)
    labels = data.labels[raw.rows]
    if isinstance(draws, EachLabelDraws):
        clips, labels = each_middle(clips, draws), draws.label
    elif isinstance(draws, TupleDraws):
        clips, labels = transform_middle(clips, draws), draws.label
    return SampleBatch(_modality(clips, config), torch.from_numpy(labels).to(device, non_blocking=True))


def _modality(clips: Tensor, config: TrialConfig) -> Tensor:
    return residual(clips) if config.clip.modality == "residual" else clips


def evenly_spaced_clips(config: TrialConfig, data: TrialData, rows: np.ndarray, device: torch.device) -> Tensor:
    """Return `evaluation.clips` centre crops of each video of `rows` (B,): (B, n, 3, T, H, W) float32.

    The clips start at `spaced_starts` (PCL's retrieval protocol).
    """
    raw = torch.from_numpy(read_spaced(config, data.clips, data.lengths, rows)).to(device)
    return _modality(augment(raw, None, config.clip.normalize), config)


def read_spaced(config: TrialConfig, frames: Frames, lengths: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Cut these centre crops out of `frames`: uint8 (B, n, T, size, size, 3). `lengths` are those of all rows."""
    clip, n = config.clip, config.evaluation.clips
    start = spaced_starts(lengths[rows], clip.frames, n)
    crop = np.broadcast_to((np.array(clip.stored_size) - clip.size) // 2, (len(rows), n, 2))
    return read_clips(frames, rows, start, crop, clip)


def spaced_starts(lengths: np.ndarray, frames: int, n: int) -> np.ndarray:
    """Return the first frames of `n` clips of `frames` frames in videos of `lengths` (B,) frames: (B, n) int64.

    Clip k starts at ⌊k · (length − frames) / (n − 1)⌋, from the first frame to the last possible one. PCL computes the
    fractions in floating point: the result is equal for its 10 clips at every length, but for 25 or 50 clips rounding
    sometimes loses a frame there.
    """
    return np.arange(n, dtype=np.int64) * (lengths[:, None] - frames) // max(n - 1, 1)


def batches(samples: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut (N,) samples into batches. A single last sample joins the batch before, since batch norm needs two."""
    cuts = list(range(size, len(samples), size))
    if len(cuts) > 0 and len(samples) - cuts[-1] == 1:
        cuts.pop()
    return np.split(samples, cuts)
