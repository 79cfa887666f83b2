"""A trained student for use elsewhere: from a video's frames to what its head says, as the trainer computes it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from kdtune.clips.augment import augment, residual
from kdtune.clips.tuples import PRETEXT_LABELS
from kdtune.config.key import restored
from kdtune.config.sections import ClipConfig
from kdtune.errors import Problem, StoreError
from kdtune.models.heads import PclNetwork, build_network
from kdtune.store import TrialFiles
from kdtune.store.files import read_json
from kdtune.train.checkpoint import trained_weights


class Student(nn.Module):
    """A network with its own preparation of clips, in evaluation mode.

    Frames are RGB as they are decoded: uint8 (B, n, T, H, W, 3), B samples of n clips of T frames, resized and cut to
    H = W = `size`. n is 3 where the head knows the pretext labels, clips of one video as in a tuple, and else 1.
    Normalisation (ImageNet's statistics) and residual frames, where the student learnt with them, are taken here.
    """

    def __init__(self, network: PclNetwork, clip: ClipConfig, clips: int, labels: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.clips, self.frames, self.size = clips, clip.frames, clip.size
        self.normalize, self.modality = clip.normalize, clip.modality
        self.labels = labels
        """What the logits stand for, in their order; empty where that is not known."""
        self.eval()

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 (B, n, T, H, W, 3) → logits (B, classes)."""
        return self.network.logits(self.features(frames))

    def features(self, frames: Tensor) -> Tensor:
        """uint8 (B, n, T, H, W, 3) → (B, n, F): what the backbone says of each clip."""
        return self.network.features(self.prepare(frames))

    def prepare(self, frames: Tensor) -> Tensor:
        """uint8 (B, n, T, H, W, 3) → (B, n, 3, T, H, W) float32, what the network was trained on."""
        clips = augment(frames, None, self.normalize)
        return residual(clips) if self.modality == "residual" else clips


def trained_student(files: TrialFiles) -> Student:
    """The student of a complete trial, on the CPU. Raises StoreError where its record or its weights are not there, or
    the weights are not those that its result names."""
    files.fetch(files.checkpoint)
    form = (read_json(files.config) or {}).get("trial")
    if form is None or files.result() is None:
        raise StoreError([Problem(str(files.folder), "is no complete trial that was trained here")])
    if not files.checkpoint.exists():
        raise StoreError([Problem(str(files.folder), "has no checkpoint any more")])
    # Teacher and start change weights, not the network; whoever loads it may train all of it.
    config = restored({**form, "frozen": "none"}, None, None)
    weights = trained_weights(files)
    network = build_network(config, classes=len(weights["head.bias"]))
    network.load_state_dict(weights)
    labels = PRETEXT_LABELS if config.loss.target == "pretext" else _actions(files)
    return Student(network, config.clip, config.clips, tuple(labels))


def _actions(files: TrialFiles) -> list[str]:
    record: dict[str, Any] = read_json(files.data) or {}
    return record.get("actions", [])
