"""The baseline's videos: decord reads the frames that a sample needs, torchvision transforms them frame by frame.

A clip is a (3, T, H, W) float32 tensor, normalised by ImageNet's statistics, as residual. It implements only the
papers' reading of the recipe, without the switches of kdtune's `pretext` and `augment`.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import decord
import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode, v2

from kdtune.config.sections import ClipConfig
from kdtune.config.trial import TrialConfig

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
REMOTE_DISTANCE = 16
SPLITS = ("train", "validation", "test")
Video = tuple[str, int]  # path, label


class Blur(v2.Transform):
    """PCL's blur: Pillow's Gaussian with σ in [0.1, 2]."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, float]:
        return {"sigma": float(torch.empty(1).uniform_(0.1, 2.0))}

    def transform(self, frame: Image.Image, params: dict[str, float]) -> Image.Image:
        return frame.filter(ImageFilter.GaussianBlur(params["sigma"]))


def transforms(clip: ClipConfig, train: bool) -> v2.Transform:
    """Transforms the list of a clip's PIL frames, which share their draws."""
    resize = v2.Resize(clip.stored_size, InterpolationMode.BILINEAR)
    if not train:
        return v2.Compose([resize, v2.CenterCrop(clip.size)])
    return v2.Compose(
        [
            resize,
            v2.RandomCrop(clip.size),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.RandomApply([Blur()], p=0.5),
            v2.RandomHorizontalFlip(),
        ]
    )


def read(reader: decord.VideoReader, starts: list[int], frames: int) -> list[list[Image.Image]]:
    """Return the clips that begin at `starts`, as PIL frames. A frame that several clips share is decoded once."""
    wanted = np.array(starts)[:, None] + np.arange(frames)
    indices, places = np.unique(wanted, return_inverse=True)
    images = [Image.fromarray(frame) for frame in reader.get_batch(indices.tolist()).asnumpy()]
    return [[images[place] for place in row] for row in places.reshape(wanted.shape)]


def tensor(frames: list[Image.Image]) -> Tensor:
    """Convert frames to a normalised clip (3, T, H, W)."""
    stacked = torch.from_numpy(np.stack([np.asarray(frame) for frame in frames])).float() / 255
    return ((stacked - MEAN) / STD).permute(3, 0, 1, 2).contiguous()


def residual(clip: Tensor) -> Tensor:
    return clip.roll(1, 1) - clip


class Tuples(Dataset[tuple[Tensor, int, int]]):
    """Return PCL's tuple of three clips, the middle one transformed, with the label of its transform."""

    def __init__(self, videos: list[Video], config: TrialConfig, train: bool) -> None:
        self.videos, self.clip, self.train = videos, config.clip, train
        self.transform = transforms(config.clip, train)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, i: int) -> tuple[Tensor, int, int]:
        draw = random if self.train else random.Random(i)  # validation uses the same draws every time
        reader = decord.VideoReader(self.videos[i][0], num_threads=1)
        clip, frames = self.clip, len(reader)
        start = draw.randrange(frames - clip.tuple_frames + 1)
        starts = [start + k * clip.start_stride for k in range(3)]
        label = draw.randrange(5)
        if label == 4:
            before = start - clip.frames - REMOTE_DISTANCE + 1
            first = start + clip.tuple_frames + REMOTE_DISTANCE
            after = frames - first - clip.frames + 1
            if before > 0 and after > 0:
                starts[1] = draw.randrange(before) if draw.random() < 0.5 else first + draw.randrange(after)
            else:
                label = draw.randrange(4)
        clips = [tensor(self.transform(part)) for part in read(reader, starts, clip.frames)]
        clips[1] = pretext(clips[1], label, draw)
        return torch.stack([residual(part) for part in clips]), label, i


def pretext(clip: Tensor, label: int, draw: Any) -> Tensor:
    """Apply PCL's transform to a clip (3, T, H, W)."""
    if label == 1:
        return torch.rot90(clip, draw.randrange(1, 4), (2, 3))
    if label == 2:
        return torch.cat([torch.cat(half.chunk(2, 3)[::-1], 3) for half in clip.chunk(2, 2)[::-1]], 2)
    if label == 3:
        chunks = list(clip.chunk(4, 1))
        a, b = draw.sample(range(4), 2)
        chunks[a], chunks[b] = chunks[b], chunks[a]
        return torch.cat(chunks, 1)
    return clip


class Spaced(Dataset[Tensor]):
    """Return evenly spaced centre-crop clips of each video, (n, 3, T, H, W), as in PCL's retrieval."""

    def __init__(self, videos: list[Video], config: TrialConfig) -> None:
        self.videos, self.clip, self.n = videos, config.clip, config.evaluation.clips
        self.transform = transforms(config.clip, train=False)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, i: int) -> Tensor:
        reader = decord.VideoReader(self.videos[i][0], num_threads=1)
        starts = [k * (len(reader) - self.clip.frames) // max(self.n - 1, 1) for k in range(self.n)]
        clips = read(reader, starts, self.clip.frames)
        return torch.stack([residual(tensor(self.transform(part))) for part in clips])


def load_lists(path: Path) -> dict[str, list[Video]]:
    rows = list(csv.DictReader(path.open()))
    return {s: [(row["path"], int(row["label"])) for row in rows if row["split"] == s] for s in SPLITS}
