"""A trained student for use elsewhere: it maps a video's frames to logits exactly as the trainer does."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdtune.clips.augment import augment, residual
from kdtune.clips.tuples import PRETEXT_LABELS
from kdtune.config.key import restored
from kdtune.config.sections import ClipConfig
from kdtune.errors import StoreError
from kdtune.models.heads import PclNetwork, build_network
from kdtune.store import TrialFiles
from kdtune.store.files import read_json
from kdtune.train.checkpoint import trained_weights


class Student(nn.Module):
    """A network in evaluation mode, with its preprocessing of clips.

    Takes decoded RGB frames: uint8 (B, n, T, H, W, 3), B samples of n clips of T frames, resized and cropped to
    H = W = `size`. n is 3 for a pretext head (the clips of a tuple, from one video), else 1. Applies normalisation
    (ImageNet's statistics) and residual frames if the student was trained with them.

    >>> student = trial.load_student()
    >>> student.labels
    ('none', 'rotation', 'spatial', 'temporal', 'remote')
    >>> frames = torch.zeros(2, student.clips, student.frames, student.size, student.size, 3, dtype=torch.uint8)
    >>> student(frames).shape
    torch.Size([2, 5])
    """

    def __init__(self, network: PclNetwork, clip: ClipConfig, clips: int, labels: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.clips, self.frames, self.size = clips, clip.frames, clip.size
        self.normalize, self.modality = clip.normalize, clip.modality
        self.labels = labels
        """The labels of the logits, in order; empty if they are unknown."""
        self.eval()

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 (B, n, T, H, W, 3) → logits (B, classes), in the order of `labels`. Raises ValueError for others."""
        self._check(frames, self.clips)
        return self.network.logits(self.features(frames))

    def features(self, frames: Tensor) -> Tensor:
        """uint8 (B, n, T, H, W, 3), any n → (B, n, F): the backbone's features of each clip."""
        return self.network.features(self.prepare(frames))

    def prepare(self, frames: Tensor) -> Tensor:
        """uint8 (B, n, T, H, W, 3), any n → (B, n, 3, T, H, W) float32, what the network was trained on."""
        self._check(frames, None)
        clips = augment(frames, None, self.normalize)
        return residual(clips) if self.modality == "residual" else clips

    def _check(self, frames: Tensor, clips: int | None) -> None:
        """Raise ValueError where the frames are not of this student's shape; `clips` None allows any number of them."""
        wanted = (clips, self.frames, self.size, self.size, 3)
        fits = frames.ndim == 6 and all(size in (None, got) for size, got in zip(wanted, frames.shape[1:], strict=True))
        if frames.dtype != torch.uint8 or not fits:
            shape = ", ".join(["B", *("n" if size is None else str(size) for size in wanted)])
            legend = "B samples of n clips of T RGB frames, (B, n, T, H, W, 3)"
            got = f"{str(frames.dtype).removeprefix('torch.')} {tuple(frames.shape)}"
            raise ValueError(f"frames must be uint8 ({shape}), {legend}, but got {got}")


def trained_student(files: TrialFiles) -> Student:
    """Return the student of a complete trial, on the CPU.

    Raises StoreError if its record or weights are missing, or the weights are not those that its result names.
    """
    files.fetch(files.checkpoint)
    form = (read_json(files.config) or {}).get("trial")
    if form is None or files.result() is None:
        raise StoreError.at(files.folder, "is not a complete trial that was trained here")
    if not files.checkpoint.exists():
        raise StoreError.at(files.folder, "no longer has a checkpoint")
    # Teacher and start change the weights, not the network. Nothing is frozen: the user may train all of it.
    config = restored({**form, "frozen": "none"}, None, None)
    weights = trained_weights(files)
    network = build_network(config, classes=len(weights["head.bias"]))
    network.load_state_dict(weights)
    labels = PRETEXT_LABELS if config.loss.target == "pretext" else (read_json(files.data) or {}).get("actions", ())
    return Student(network, config.clip, config.clips, tuple(labels))
