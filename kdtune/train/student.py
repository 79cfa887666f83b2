"""A trained student for use elsewhere: it maps a video's frames to logits exactly as the trainer does."""

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
    """A network in evaluation mode, with its preprocessing of clips.

    Takes decoded RGB frames: uint8 (B, n, T, H, W, 3), B samples of n clips of T frames, resized and cropped to
    H = W = `size`. n is 3 for a pretext head (the clips of a tuple, from one video), else 1. Applies normalisation
    (ImageNet's statistics) and residual frames if the student was trained with them.
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
        """Return the logits (B, classes) of uint8 frames (B, n, T, H, W, 3)."""
        return self.network.logits(self.features(frames))

    def features(self, frames: Tensor) -> Tensor:
        """Return the backbone's features (B, n, F) of uint8 frames (B, n, T, H, W, 3)."""
        return self.network.features(self.prepare(frames))

    def prepare(self, frames: Tensor) -> Tensor:
        """Return the network's input (B, n, 3, T, H, W) float32 for uint8 frames (B, n, T, H, W, 3)."""
        clips = augment(frames, None, self.normalize)
        return residual(clips) if self.modality == "residual" else clips


def trained_student(files: TrialFiles) -> Student:
    """Return the student of a complete trial, on the CPU.

    Raises StoreError if its record or weights are missing, or the weights are not those that its result names.
    """
    files.fetch(files.checkpoint)
    form = (read_json(files.config) or {}).get("trial")
    if form is None or files.result() is None:
        raise StoreError([Problem(str(files.folder), "is not a complete trial that was trained here")])
    if not files.checkpoint.exists():
        raise StoreError([Problem(str(files.folder), "no longer has a checkpoint")])
    # Teacher and start change the weights, not the network. Nothing is frozen: the user may train all of it.
    config = restored({**form, "frozen": "none"}, None, None)
    weights = trained_weights(files)
    network = build_network(config, classes=len(weights["head.bias"]))
    network.load_state_dict(weights)
    labels = PRETEXT_LABELS if config.loss.target == "pretext" else _actions(files)
    return Student(network, config.clip, config.clips, tuple(labels))


def _actions(files: TrialFiles) -> list[str]:
    record: dict[str, Any] = read_json(files.data) or {}
    return record.get("actions", [])
