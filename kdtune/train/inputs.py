"""From sample numbers to what a network eats: draw, read, augment, transform, take residuals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdtune.clips.augment import augment, residual
from kdtune.clips.dataset import TrialData
from kdtune.clips.pretext import transform_middle
from kdtune.clips.tuples import draw_tuples, read_clips
from kdtune.config.trial import TrialConfig

#: Evaluations ask every trial the same questions, whatever its seed.
EVALUATION_SEED = 0


@dataclass(frozen=True)
class TupleBatch:
    """B tuples ready for a network."""

    clips: Tensor  # (B, 3, 3, T, H, W) float32: tuple, clip, channel, frame, height, width
    labels: Tensor  # (B,) int64 pretext labels


def training_tuples(
    config: TrialConfig, data: TrialData, epoch: int, samples: np.ndarray, device: torch.device
) -> TupleBatch:
    """The augmented tuples of `samples` (B,), positions in the one order, in one epoch."""
    return _tuples(config, data, config.seed, "train", epoch, samples, data.order[samples], device)


def evaluation_tuples(config: TrialConfig, data: TrialData, rows: np.ndarray, device: torch.device) -> TupleBatch:
    """Centre-crop tuples of `rows` (B,) of the store, the same at every stage of every trial."""
    return _tuples(config, data, EVALUATION_SEED, "evaluate", 0, rows, rows, device)


def _tuples(
    config: TrialConfig,
    data: TrialData,
    seed: int,
    purpose: str,
    epoch: int,
    samples: np.ndarray,
    rows: np.ndarray,
    device: torch.device,
) -> TupleBatch:
    draws = draw_tuples(
        config,
        seed=seed,
        purpose=purpose,
        epoch=epoch,
        samples=samples,
        lengths=data.lengths[rows],
        train=purpose == "train",
    )
    raw = torch.from_numpy(read_clips(data.clips, rows, draws.start, draws.crop, config.clip)).to(device)
    clips = transform_middle(augment(raw, draws.colour), draws)
    if config.clip.modality == "residual":
        clips = residual(clips)
    return TupleBatch(clips, torch.from_numpy(draws.label).to(device))


def evenly_spaced_clips(config: TrialConfig, data: TrialData, rows: np.ndarray, device: torch.device) -> Tensor:
    """`evaluation.clips` centre crops of each video of `rows` (B,) → (B, n, 3, T, H, W) float32.

    Starts are evenly spaced from the first frame to the last possible one (PCL's retrieval protocol).
    """
    clip, n = config.clip, config.evaluation.clips
    last = data.lengths[rows] - clip.frames
    start = np.floor(np.linspace(0, 1, n)[None] * last[:, None]).astype(np.int64)
    room = np.array(clip.stored_size) - clip.size
    crop = np.broadcast_to(room // 2, (len(rows), n, 2))
    clips = augment(torch.from_numpy(read_clips(data.clips, rows, start, crop, clip)).to(device), None)
    return residual(clips) if clip.modality == "residual" else clips


def batches(samples: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut (N,) samples into batches; a last one of a single sample joins the one before, for batch normalisation."""
    cuts = list(range(size, len(samples), size))
    if len(cuts) > 0 and len(samples) - cuts[-1] == 1:
        cuts.pop()
    return np.split(samples, cuts)
