"""The sections of a trial, field by field: what is left out has the paper's value (sources in each docstring).

KD = Camarena et al., J. Imaging 2024, 10(4), 85. PCL = Tao et al., arXiv 2010.15464, and its published code.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from kdtune.config.fields import Count, NotNegative, Positive, Section, Seed, Share, Side, Sigma
from kdtune.config.schedules import Temperature, Weight


class DataConfig(Section):
    """Which videos, and which part of them."""

    dataset: Literal["synthetic", "ucf101", "hmdb51", "folder"] = "ucf101"
    """`folder`: class folders, or train, val and test folders of them, with UCF101-style lists and a groups.csv."""
    root: str | None = None
    """Where the class folders are. Default: data/<dataset>."""
    lists: str | None = None
    """Where the official lists are. Default: the root."""
    split: Literal[1, 2, 3] = 1
    """Which of the official splits."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training videos, the first ones of the one class-balanced order. KD: 1.0, 0.5, 0.25, 0.02."""
    subset_seed: Seed = 0
    """Fixes that order and which groups are validation."""
    validation: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """Share of the training list kept for the search. 0: the whole list is trained on, and
    validation is the test list, as in PCL's code: then the test list steers, and plan, sweep and report say so."""
    carve: Literal["groups", "videos"] = "groups"
    """Whether validation is carved by whole groups or, as PCL's fine-tuning does, by single videos: clips of one source
    are then on both sides, and validation looks better than it is."""
    train_on: Literal["rest", "all"] = "rest"
    """Train on what validation leaves, or on validation as well, as a sweep's `refit: true` does. Figures on validation
    are then of videos that were trained on, and those on test alone count."""
    max_refused: Share = 0.05
    """More than this share of undecodable files is an error."""
    same_bytes: Literal["refuse", "allow"] | None = None
    """What to do with files of the same bytes in two classes, or in training and test: refuse, or allow and warn.
    Default: allow for ucf101 and hmdb51, whose lists are the protocol; else refuse. No part of a trial's key."""

    @property
    def folder(self) -> str:
        return self.root or f"data/{self.dataset}"


class ClipConfig(Section):
    """The shape of a clip and of the tuple of three clips."""

    frames: Annotated[int, Field(ge=4, le=4096)] = 10
    """T, frames in a clip. KD: 10, PCL: 16. Four chunks of ⌈T/4⌉ must come out (not so for 5, 6 and 9)."""
    size: Annotated[int, Field(ge=16, le=4096, multiple_of=2)] = 112
    """Side of the square crop in pixels."""
    resize: Annotated[tuple[Side, Side] | None, Field(strict=False)] = None
    """Height and width of the stored frames. Default: 128×171 scaled by size/112."""
    stride: Literal["pcl", "vcop"] = "pcl"
    """Frames between clip starts: pcl = 3 + interval (what PCL's code does), vcop = T + interval (its ancestor)."""
    interval: Annotated[int, Field(ge=0, le=1_000_000)] = 8
    """Frames between clips, as the lists of VCOP and PCL count them."""
    modality: Literal["residual", "rgb"] = "residual"
    """residual: roll(x, 1, T) − x (PCL)."""
    normalize: bool = True
    """ImageNet's mean and deviation, before the residual. PCL's pre-training and retrieval do, its fine-tuning not."""
    tier: Literal["auto", "raw", "jpeg"] = "auto"
    """How decoded frames are kept: raw, or as JPEGs: a fifth of the bytes, other pixels (and so another key), more work
    at each reading. auto: what is there already; else raw where it fits in half of the memory and on the disk."""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """Of the JPEGs. Residuals are small differences of frames: at 95 a pixel is off by 1.4 of 255 on average and by 6
    at the 99th percentile, at 75 by 3 and 14 for half the bytes."""

    @field_validator("frames")
    @classmethod
    def _four_chunks(cls, frames: int) -> int:
        if 3 * -(-frames // 4) >= frames:
            raise PydanticCustomError("chunks", f"frames must be cut into four chunks of ceil(T/4), but got T={frames}")
        return frames

    @model_validator(mode="after")
    def _crop_fits(self) -> ClipConfig:
        if min(self.stored_size) < self.size:
            raise PydanticCustomError(
                "crop", f"resize must be at least size, but got resize={self.resize}, size={self.size}"
            )
        return self

    @property
    def stored_size(self) -> tuple[int, int]:
        """Height and width of the frames in the ClipStore, in pixels."""
        if self.resize is not None:
            return self.resize
        return (128 * self.size + 56) // 112, (171 * self.size + 56) // 112

    @property
    def start_stride(self) -> int:
        """Frames from one clip's start to the next one's."""
        return self.interval + (3 if self.stride == "pcl" else self.frames)

    @property
    def tuple_frames(self) -> int:
        """Frames a video needs: PCL's tuple_total_frames, whatever the stride (46 at T = 10)."""
        return 3 * self.frames + 2 * self.interval


class PretextConfig(Section):
    """The ambiguous points of the five pretext transforms."""

    spatial: Literal["fixed", "random"] = "fixed"
    """Quadrant order: fixed = [3,2,1,0] (PCL's code), random = any other than the identity."""
    temporal: Literal["any", "adjacent"] = "any"
    """Which two of four chunks are swapped: any two (PCL's code) or neighbours (KD's text)."""
    remote: Literal["both", "either"] = "both"
    """Label 4 is kept where a remote clip fits both before and after the tuple (PCL's code), or on either side."""


class AugmentConfig(Section):
    """What is drawn for a training clip beside its place (PCL's code; SimCLR's set)."""

    per: Literal["clip", "frame"] = "clip"
    """One draw a clip, the same for its frames (PCL's intention), or one a frame: what PCL's code does by accident with
    a newer torchvision, and what ruins residuals. The blur's σ is the clip's either way, as there."""
    brightness: NotNegative = 0.4
    contrast: NotNegative = 0.4
    saturation: NotNegative = 0.4
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    jitter_p: Share = 0.8
    grey_p: Share = 0.2
    blur_p: Share = 0.5
    blur_sigma: Annotated[tuple[Sigma, Sigma], Field(strict=False)] = (0.1, 2.0)
    """Least and largest σ of the Gaussian blur, in pixels."""
    flip_p: Share = 0.5
    """Horizontal flip (in PCL's code; KD omits it)."""

    @field_validator("blur_sigma")
    @classmethod
    def _low_to_high(cls, sigma: tuple[float, float]) -> tuple[float, float]:
        if sigma[0] > sigma[1]:
            raise PydanticCustomError("sigma", f"`least <= largest` must hold, but got {list(sigma)}")
        return sigma

    @property
    def blur_radius(self) -> int:
        """Taps on either side: 3σ of the widest blur, the same for every clip, so that none depends on its batch."""
        return math.ceil(3 * self.blur_sigma[1])


class LossConfig(Section):
    """pretext: L = CE(label) + alpha · contrast + lambda · tau² · KL + beta · relations + gamma · features.

    action: L = CE(action) + lambda · tau² · KL + gamma · features, on single clips.
    """

    target: Literal["pretext", "action"] = "pretext"
    """What the head learns and the teacher's logits teach: the five pretext labels (KD's poster and Table 1), or the
    action labels (KD §3.3 read literally)."""
    alpha: NotNegative = 0.5
    """Weight of the contrastive term. KD: 0.5."""
    lambda_: Weight = Field(default=1.0, alias="lambda")
    """Weight of the distillation of logits. KD never states it: search it. A number, or `{from: 1, to: 0}`."""
    tau: Temperature = 4.0
    """Temperature of the distillation of logits, a number or a schedule. KD: 4."""
    beta: NotNegative = 0.0
    """Weight of temporal knowledge transfer: how a tuple's three clips relate in time, teacher against student."""
    gamma: NotNegative = 0.0
    """Weight of feature distillation: how far the student's features, through a small projector, point away from the
    teacher's (2 − 2 cos). The idea is HalluciNet's, the loss is not: that is 50 · MSE of sigmoids."""
    contrast: Literal["memory_bank", "in_batch"] = "memory_bank"
    temperature: Positive = 0.07
    """Of the contrastive softmax."""
    negatives: Count = 1024
    """K, drawn uniformly from the memory bank for each sample."""
    bank_momentum: Share = 0.5
    """Share of the old entry that a memory bank keeps at an update."""
    projection: Annotated[int, Field(ge=1, le=65_536)] = 128
    """Dimension of the projector's output."""


class OptimizerConfig(Section):
    """SGD, as PCL."""

    lr: Positive = 0.01
    momentum: Share = 0.9
    weight_decay: NotNegative = 5e-4
    batch: Annotated[int, Field(ge=2, le=1_000_000)] = 16
    """Tuples a step; a last batch of one joins the one before (batch normalisation needs two)."""
    schedule: Literal["plateau", "constant"] = "plateau"
    """plateau: on the validation set's pretext cross-entropy."""
    patience: Annotated[int, Field(ge=0, le=10_000_000)] = 50
    """Epochs without improvement before the rate falls."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    min_lr: NotNegative = 1e-5


class EvaluationConfig(Section):
    """How a frozen network is measured at a stage."""

    clips: Count = 10
    """Evenly spaced centre-crop clips of a video whose features (logits, where the target is action) are averaged."""
    neighbors: Count = 1
    """Training videos that vote, weighted by cosine similarity; 1 is PCL's top-1 retrieval."""
    features: Literal["pooled", "conv5"] = "pooled"
    """Let k-NN and retrieval compare the backbone's output, or the last stage's maps, max-pooled by 1×2×2 and
    flattened, as PCL's retrieval does for R3D, R(2+1)D and C3D (9,216 numbers a video at T = 16 and 112²)."""
    transform: Literal["centre", "train"] = "centre"
    """Of the samples behind pretext accuracy and validation loss: centre crops, or augmented as in training, which is
    how PCL's code validates."""
    draws: Literal["fixed", "epoch"] = "fixed"
    """Keep the same samples augmented as in training, or draw them anew each epoch, as a data loader does. A best so
    far is then the best of many draws, and higher for that alone."""


class StageConfig(Section):
    """What is measured at a stage, and what counts."""

    reduce: Literal["boundary", "best"] = "boundary"
    """Which value objective, pruning and tables take: the one at the boundary, or the best so far (most probably KD's
    stage accuracies). Both are always recorded, so this is no part of a trial's key."""
    weights: Literal["last", "best"] = "last"
    """Which weights are measured, and kept at the end: the epoch's own, or those of the lowest validation loss so far
    (PCL's best_model)."""
    every: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Also evaluate after every so many epochs, for a finer best-so-far; 0 is at the stages alone."""
    between: Literal["all", "head"] = "all"
    """Measure everything there, or the head alone with the epoch's own weights, as PCL's code prints it."""
    keep: bool = True
    """Keep the checkpoint of each stage, with which `replay --from STAGE` begins. No part of a trial's key."""
