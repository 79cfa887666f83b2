"""From sample numbers to what a network eats: draw, read, augment, transform, take residuals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdtune.clips.augment import augment, residual
from kdtune.clips.dataset import TrialData
from kdtune.clips.pretext import transform_middle
from kdtune.clips.tuples import ClipDraws, TupleDraws, draw_clips, draw_tuples, read_clips
from kdtune.config.trial import TrialConfig

#: Evaluations ask every trial the same questions, whatever its seed.
EVALUATION_SEED = 0


@dataclass(frozen=True)
class SampleBatch:
    """B samples ready for a network."""

    clips: Tensor  # (B, n, 3, T, H, W) float32: sample, clip (3 of a tuple, or 1), channel, frame, height, width
    labels: Tensor  # (B,) int64, pretext labels or actions


def training_samples(
    config: TrialConfig, data: TrialData, epoch: int, samples: np.ndarray, device: torch.device
) -> SampleBatch:
    """The augmented samples at the positions `samples` (B,) of the one order, in one epoch."""
    draws = _draw(config, data, config.seed, "train", epoch, samples, data.order[samples], train=True)
    return _samples(config, data, data.order[samples], draws, device)


def evaluation_samples(config: TrialConfig, data: TrialData, rows: np.ndarray, device: torch.device) -> SampleBatch:
    """One sample of each of `rows` (B,) of the store, the same at every stage of every trial."""
    train = config.evaluation.transform == "train"
    draws = _draw(config, data, EVALUATION_SEED, "evaluate", 0, rows, rows, train=train)
    return _samples(config, data, rows, draws, device)


def _draw(
    config: TrialConfig,
    data: TrialData,
    seed: int,
    purpose: str,
    epoch: int,
    samples: np.ndarray,
    rows: np.ndarray,
    *,
    train: bool,
) -> ClipDraws:
    draw = draw_tuples if config.loss.target == "pretext" else draw_clips
    return draw(
        config, seed=seed, purpose=purpose, epoch=epoch, samples=samples, lengths=data.lengths[rows], train=train
    )


def _samples(
    config: TrialConfig, data: TrialData, rows: np.ndarray, draws: ClipDraws, device: torch.device
) -> SampleBatch:
    raw = torch.from_numpy(read_clips(data.clips, rows, draws.start, draws.crop, config.clip)).to(device)
    clips, labels = augment(raw, draws.colour, config.clip.normalize), data.labels[rows]
    if isinstance(draws, TupleDraws):
        clips, labels = transform_middle(clips, draws), draws.label
    return SampleBatch(_modality(clips, config), torch.from_numpy(labels).to(device))


def _modality(clips: Tensor, config: TrialConfig) -> Tensor:
    return residual(clips) if config.clip.modality == "residual" else clips


def evenly_spaced_clips(config: TrialConfig, data: TrialData, rows: np.ndarray, device: torch.device) -> Tensor:
    """`evaluation.clips` centre crops of each video of `rows` (B,) → (B, n, 3, T, H, W) float32.

    Starts are evenly spaced from the first frame to the last possible one (PCL's retrieval protocol).
    """
    clip, n = config.clip, config.evaluation.clips
    last = data.lengths[rows] - clip.frames
    start = np.floor(np.linspace(0, 1, n)[None] * last[:, None]).astype(np.int64)
    room = np.array(clip.stored_size) - clip.size
    crop = np.broadcast_to(room // 2, (len(rows), n, 2))
    raw = torch.from_numpy(read_clips(data.clips, rows, start, crop, clip)).to(device)
    return _modality(augment(raw, None, clip.normalize), config)


def batches(samples: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut (N,) samples into batches; a last one of a single sample joins the one before, for batch normalisation."""
    cuts = list(range(size, len(samples), size))
    if len(cuts) > 0 and len(samples) - cuts[-1] == 1:
        cuts.pop()
    return np.split(samples, cuts)
