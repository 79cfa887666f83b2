"""The sections of a trial, field by field. Defaults are the papers' values; each docstring names its source.

KD = Camarena et al., J. Imaging 2024, 10(4), 85. PCL = Tao et al., arXiv 2010.15464, and its published code.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from kdtune.config.fields import Count, NotNegative, Positive, Section, Seed, Share, Side, Sigma, broken
from kdtune.config.schedules import Temperature, Weight


class DataConfig(Section):
    """The videos of a trial, and which of them it uses."""

    dataset: Literal["synthetic", "ucf101", "hmdb51", "folder"] = "ucf101"
    """The kind of data set. `folder` reads your own videos, files or folders of frames: class folders, train, val and
    test folders of class folders, or lists of paths and labels (docs/videos.md)."""
    root: str | None = None
    """Folder that holds the class folders. Default: `data/` and the data set's name."""
    lists: str | None = None
    """Folder that holds the lists, or a single list. Default: the root."""
    split: Literal[1, 2, 3] = 1
    """Number of the official split to use."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training videos to train on: the first of the class-balanced order. KD: 1.0, 0.5, 0.25, 0.02."""
    subset_seed: Seed = 0
    """Seed of that order and of the choice of validation groups."""
    validation: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """Share of the training list kept for validation, where the data set does not name its own. With 0, all of the list
    is trained on and validation is the test list, as in PCL's code: the test list then steers the search, and plan,
    sweep and report say so."""
    carve: Literal["groups", "videos"] = "groups"
    """Carve validation by whole groups or, like PCL's fine-tuning, by single videos. Clips of one source are then on
    both sides, and validation looks better than it is."""
    train_on: Literal["rest", "all"] = "rest"
    """Train on the videos that validation leaves, or on all, as a sweep's `refit: true` does. With `all`, validation
    videos are trained on, and only figures on test count."""
    fps: Positive | None = None
    """Rate in frames per second at which folders of frames were taken. `plan` and `data prepare` show lengths in
    seconds with it; clips count frames, so it changes no result. The field is not part of a trial's key."""
    max_refused: Share = 0.05
    """Largest share of the files that may be undecodable. With more, the data set is refused."""
    same_bytes: Literal["refuse", "allow"] | None = None
    """Treatment of files with the same bytes in two classes, or in training and test: `refuse` them, or `allow` them
    with a warning. Default: `allow` for ucf101 and hmdb51, whose lists are the protocol; else `refuse`. The field is
    not part of a trial's key."""

    @property
    def folder(self) -> str:
        return self.root or f"data/{self.dataset}"


class ClipConfig(Section):
    """The shape of a clip and of the tuple of three clips."""

    frames: Annotated[int, Field(ge=4, le=4096)] = 10
    """Number of frames in a clip, T. KD: 10, PCL: 16. T must split into four chunks of ⌈T/4⌉, which rules out 5, 6 and
    9."""
    size: Annotated[int, Field(ge=16, le=4096, multiple_of=2)] = 112
    """Side of the square crop in pixels."""
    resize: Annotated[tuple[Side, Side] | None, Field(strict=False)] = None
    """Height and width of the stored frames. Default: 128×171 scaled by size/112."""
    stride: Literal["pcl", "vcop"] = "pcl"
    """Frames from one clip's start to the next: `pcl` is 3 + interval (PCL's code), `vcop` is T + interval (VCOP, its
    ancestor)."""
    interval: Annotated[int, Field(ge=0, le=1_000_000)] = 8
    """Frames between clips, counted as in the lists of VCOP and PCL."""
    modality: Literal["residual", "rgb"] = "residual"
    """The network's input: `residual`, each frame's difference from the one before (roll(x, 1, T) − x, PCL), or
    `rgb`, the frames themselves."""
    normalize: bool = True
    """Normalise by ImageNet's mean and deviation, before the residual. PCL does so in pre-training and retrieval, but
    not in fine-tuning."""
    tier: Literal["auto", "raw", "jpeg"] = "auto"
    """Form of the stored frames: `raw`, or `jpeg`, which takes a fifth of the bytes but has other pixels (hence
    another key) and costs more at each reading. `auto` keeps to the tier that the store has; for a new store it takes
    `raw` if that fits in half of the memory and on the disk."""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """Quality of the JPEGs. Residuals are small differences of frames: at 95 a pixel is off by 1.4 of 255 on average
    and by 6 at the 99th percentile, at 75 by 3 and 14 for half the bytes."""

    @field_validator("frames")
    @classmethod
    def _four_chunks(cls, frames: int) -> int:
        if 3 * -(-frames // 4) >= frames:
            raise broken("frames must be cut into four chunks of ceil(T/4)", f"T={frames}")
        return frames

    @model_validator(mode="after")
    def _crop_fits(self) -> ClipConfig:
        if min(self.stored_size) < self.size:
            raise broken("resize must be at least size", f"resize={self.resize}, size={self.size}")
        return self

    @property
    def stored_size(self) -> tuple[int, int]:
        """Height and width of the frames in the ClipStore, in pixels."""
        if self.resize is not None:
            return self.resize
        return (128 * self.size + 56) // 112, (171 * self.size + 56) // 112

    @property
    def start_stride(self) -> int:
        """Frames from one clip's start to the next."""
        return self.interval + (3 if self.stride == "pcl" else self.frames)

    @property
    def tuple_frames(self) -> int:
        """Frames that a video needs: PCL's tuple_total_frames, for both strides (46 at T = 10)."""
        return 3 * self.frames + 2 * self.interval


class PretextConfig(Section):
    """Variants of the pretext transforms where the papers are ambiguous."""

    spatial: Literal["fixed", "random"] = "fixed"
    """Order of the quadrants in the spatial transform: `fixed` is [3,2,1,0] (PCL's code), `random` is any order but the
    identity."""
    temporal: Literal["any", "adjacent"] = "any"
    """Which two of the four chunks the temporal transform swaps: `any` two (PCL's code) or `adjacent` ones (KD's
    text)."""
    remote: Literal["both", "either"] = "both"
    """The places where label 4, the remote clip, is allowed: where one fits on `both` sides of the tuple (PCL's code),
    or on `either`."""


class AugmentConfig(Section):
    """Random changes to a training clip's appearance (PCL's code; SimCLR's set)."""

    per: Literal["clip", "frame"] = "clip"
    """Draw once per clip, the same for all its frames (PCL's intention), or once per frame, which PCL's code does by
    accident with a newer torchvision and which ruins residuals. The blur's σ is drawn per clip in any case."""
    brightness: NotNegative = 0.4
    """Largest change of the brightness, as a share of it."""
    contrast: NotNegative = 0.4
    """Largest change of the contrast, as a share of it."""
    saturation: NotNegative = 0.4
    """Largest change of the saturation, as a share of it."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Largest shift of the hue, in turns of the colour circle."""
    jitter_p: Share = 0.8
    """Probability of changing brightness, contrast, saturation and hue."""
    grey_p: Share = 0.2
    """Probability of turning a clip grey."""
    blur_p: Share = 0.5
    """Probability of the Gaussian blur."""
    blur_sigma: Annotated[tuple[Sigma, Sigma], Field(strict=False)] = (0.1, 2.0)
    """Smallest and largest σ of the Gaussian blur, in pixels."""
    flip_p: Share = 0.5
    """Probability of a horizontal flip (in PCL's code; KD omits it)."""

    @field_validator("blur_sigma")
    @classmethod
    def _low_to_high(cls, sigma: tuple[float, float]) -> tuple[float, float]:
        if sigma[0] > sigma[1]:
            raise broken("`least <= largest` must hold", list(sigma))
        return sigma

    @property
    def blur_radius(self) -> int:
        """Taps on either side: 3σ of the widest blur, the same for every clip, so that no clip depends on its batch."""
        return math.ceil(3 * self.blur_sigma[1])


class LossConfig(Section):
    """The student's loss.

    pretext: L = CE(label) + alpha · contrast + lambda · tau² · KL + beta · relations + gamma · features.
    action: L = CE(action) + lambda · tau² · KL + gamma · features, on single clips.
    """

    target: Literal["pretext", "action"] = "pretext"
    """Labels that the head learns and the teacher's logits cover: the five pretext labels (KD's poster and Table 1), or
    the action labels (KD §3.3 read literally)."""
    alpha: NotNegative = 0.5
    """Weight of the contrastive term. KD: 0.5."""
    lambda_: Weight = Field(default=1.0, alias="lambda")
    """Weight of logit distillation, a number or a schedule (`{from: 1, to: 0}`). KD does not state it: search it."""
    tau: Temperature = 4.0
    """Temperature of logit distillation, a number or a schedule. KD: 4."""
    beta: NotNegative = 0.0
    """Weight of temporal knowledge transfer: match the teacher in how the three clips of a tuple relate in time."""
    gamma: NotNegative = 0.0
    """Weight of feature distillation: the squared distance of teacher's and student's features as unit vectors
    (2 − 2 cos), the student's through a small projector. HalluciNet, the source, uses 50 · MSE of sigmoids instead."""
    contrast: Literal["memory_bank", "in_batch"] = "memory_bank"
    """Source of the negatives of the contrastive term."""
    temperature: Positive = 0.07
    """Temperature of the contrastive softmax."""
    negatives: Count = 1024
    """Number of negatives, K, drawn uniformly from the memory bank for each sample."""
    bank_momentum: Share = 0.5
    """Share of the old entry that the memory bank keeps in an update."""
    projection: Annotated[int, Field(ge=1, le=65_536)] = 128
    """Dimension of the projector's output."""


class OptimizerConfig(Section):
    """SGD, as in PCL."""

    lr: Positive = 0.01
    """Learning rate of the first epoch."""
    momentum: Share = 0.9
    """Momentum of SGD."""
    weight_decay: NotNegative = 5e-4
    """Weight decay (L2 penalty) of all weights."""
    batch: Annotated[int, Field(ge=2, le=1_000_000)] = 16
    """Samples per step. A last batch of one is merged into the one before (batch normalisation needs two)."""
    schedule: Literal["plateau", "constant"] = "plateau"
    """`plateau` lowers the learning rate when the cross-entropy on validation stops improving; `constant` keeps it."""
    patience: Annotated[int, Field(ge=0, le=10_000_000)] = 50
    """Epochs without improvement before the learning rate falls."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Factor by which the learning rate falls."""
    min_lr: NotNegative = 1e-5
    """Smallest learning rate."""


class EvaluationConfig(Section):
    """How the frozen network is measured at a stage."""

    clips: Count = 10
    """Evenly spaced centre-crop clips per video, over which features (with target action, also logits) are averaged."""
    neighbors: Count = 1
    """Number of training videos that vote in k-NN, weighted by cosine similarity. 1 is PCL's top-1 retrieval."""
    features: Literal["pooled", "conv5"] = "pooled"
    """Features that k-NN and retrieval compare: the backbone's output, or the last stage's maps, max-pooled by 1×2×2
    and flattened, as in PCL's retrieval for R3D, R(2+1)D and C3D (9,216 numbers per video at T = 16 and 112²)."""
    transform: Literal["centre", "train"] = "centre"
    """Samples for pretext accuracy and validation loss: `centre` crops, or samples augmented as in training (`train`),
    which is how PCL's code validates."""
    labels: Literal["each", "drawn"] = "each"
    """Pretext labels under which a video is measured: `each` of the five, at the same places, so that a constant answer
    scores exactly a fifth; or one, `drawn` as in training and PCL's code. `each` passes 7 clips, and `drawn` 3."""
    draws: Literal["fixed", "epoch"] = "fixed"
    """With `transform: train`, use the same augmented samples in every epoch, or draw new ones each epoch, as a data
    loader does. The best so far is then the best of many draws, and higher for that reason alone."""


class StageConfig(Section):
    """What is measured at a stage, and which value counts."""

    reduce: Literal["boundary", "best"] = "boundary"
    """The value that objective, pruning and tables use: the one at the boundary, or the best so far (most probably KD's
    stage accuracies). Both are always recorded, so this is not part of a trial's key."""
    weights: Literal["last", "best"] = "last"
    """The weights that are measured, and kept at the end: the epoch's own, or those with the lowest validation loss so
    far (PCL's best_model)."""
    every: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Also evaluate every N epochs, for a finer best so far. 0 evaluates at the stages only."""
    between: Literal["all", "head"] = "all"
    """What those extra evaluations measure: everything, or only the head with the epoch's own weights, as PCL's code
    prints it."""
    keep: bool = True
    """Keep the checkpoint of each stage, from which `replay --from STAGE` starts. Not part of a trial's key."""
