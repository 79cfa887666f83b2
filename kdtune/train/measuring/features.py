"""Features of whole videos as in an evaluation: those of evenly spaced centre crops, averaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from kdtune.config.trial import TrialConfig
from kdtune.errors import DataError, Problem
from kdtune.train.inputs import read_spaced
from kdtune.train.measuring.evaluate import EVALUATION_BATCH
from kdtune.train.measuring.student import Student

#: A file, or frames: uint8 (T, H, W, 3) RGB.
Video = str | Path | np.ndarray


def video_features(student: Student, config: TrialConfig, videos: Sequence[Video]) -> np.ndarray:
    """Return the features of `videos` by `student`, (N, F) float32.

    Each row is the mean over `config.evaluation.clips` clips of `config.clip.frames` frames, from the first frame to
    the last one, each resized to `config.clip.stored_size` and cropped to its centre. A trial's k-NN and probe use
    these features if its frames are stored raw and `evaluation.features` is pooled.

    Raises DataError with every video that cannot be decoded or is too short.
    """
    problems: list[Problem] = []
    parts = [np.empty((0, student.network.head.in_features // student.clips), np.float32)]
    device = next(student.parameters()).device
    for clips in _batches(config, videos, problems):
        if not problems:  # otherwise only collect the remaining problems
            with torch.no_grad():
                features = student.features(torch.from_numpy(clips).to(device))
            parts.append(features.mean(1).cpu().numpy())
    if problems:
        raise DataError(problems)
    return np.concatenate(parts)


def _batches(config: TrialConfig, videos: Sequence[Video], problems: list[Problem]) -> Iterator[np.ndarray]:
    """Yield the clips of the videos, (B, n, T, size, size, 3) uint8; what is wrong with a video goes to `problems`."""
    from kdtune.clips.video.opening import Refused

    batch: list[np.ndarray] = []
    for number, video in enumerate(videos):
        try:
            batch.append(_clips(config, _frames(config, video)))
        except (Refused, ValueError) as error:
            where = f"videos[{number}]" if isinstance(video, np.ndarray) else str(video)
            problems.append(Problem(where, str(error)))
        if len(batch) == EVALUATION_BATCH:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def _frames(config: TrialConfig, video: Video) -> np.ndarray:
    """Return all frames of a video, (T, h, w, 3) uint8 of `stored_size`."""
    # Imported here: a machine that trains on decoded frames needs no decoder.
    from kdtune.clips.video.decode import decode, resized

    size = config.clip.stored_size
    if not isinstance(video, np.ndarray):
        frames: list[np.ndarray] = []
        for number, pixels, _ in decode(Path(video), size):
            del frames[number:]  # a frame of number 0 voids all before it
            frames.append(pixels)
        return np.stack(frames)
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[3] != 3 or 0 in video.shape:
        raise ValueError(f"frames must be uint8 (T, H, W, 3), but got {video.dtype} {video.shape}")
    return np.stack([resized(frame, size) for frame in video])


def _clips(config: TrialConfig, frames: np.ndarray) -> np.ndarray:
    """Return the evenly spaced centre crops (n, T, size, size, 3) of a video's frames (T', h, w, 3)."""
    if len(frames) < config.clip.frames:
        raise ValueError(f"has {len(frames)} frames, the student needs at least {config.clip.frames}")
    return read_spaced(config, _Video(frames), np.array([len(frames)]), np.zeros(1, np.int64))[0]


class _Video:
    """One video's frames, to read clips from."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames = frames

    def clip(self, row: int, start: int, count: int, /) -> np.ndarray:
        """(count, h, w, 3) uint8."""
        return self.frames[start : start + count]
