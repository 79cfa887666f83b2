"""The configuration of fine-tuning after pre-training. Defaults follow PCL's ft_classify.py."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kdtune.config.fields import Count, NotNegative, Positive, Section, Side
from kdtune.config.schedules import Temperature, Weight, largest
from kdtune.config.sections import AugmentConfig, ClipConfig, DataConfig, LossConfig, OptimizerConfig

#: The part of a network that is not trained.
Frozen = Literal["none", "backbone"]


class FinetuneAugment(AugmentConfig):
    """Augmentation of fine-tuning: only random crops, as in PCL's ft_classify.py."""

    jitter_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability of changing brightness, contrast, saturation and hue."""
    grey_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability of turning a clip grey."""
    blur_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability of the Gaussian blur."""
    flip_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability of a horizontal flip."""


class FinetuneOptimizer(OptimizerConfig):
    """Optimizer of fine-tuning, as in PCL's ft_classify.py."""

    lr: Positive = 1e-3
    """Learning rate of the first epoch."""
    batch: Annotated[int, Field(ge=2, le=1_000_000)] = 8
    """Samples per step. A last batch of one is merged into the one before (batch normalisation needs two)."""
    patience: Annotated[int, Field(ge=0, le=10_000_000)] = 30
    """Epochs without improvement before the learning rate falls."""


class FinetuneClip(Section):
    """Clip fields that differ from pre-training. Fields left out stay unchanged."""

    frames: Annotated[int, Field(ge=4, le=4096)] | None = None
    """Number of frames in a clip. Default: as in pre-training."""
    size: Annotated[int, Field(ge=16, le=4096, multiple_of=2)] | None = None
    """Side of the square crop in pixels. Default: as in pre-training."""
    resize: Annotated[tuple[Side, Side] | None, Field(strict=False)] = None
    """Height and width of the stored frames. Default: as in pre-training, or 128×171 scaled by size/112 where `size` is
    given."""
    modality: Literal["residual", "rgb"] | None = None
    """The network's input. Default: as in pre-training."""


class FinetuneDistil(Section):
    """L = CE(action) + lambda · tau² · KL + gamma · features, with the trial's teacher; CE alone without a teacher.

    A teacher that learned actions is used as it is. Any other teacher is first fine-tuned like its student, but without
    a teacher.
    """

    lambda_: Weight = Field(default=0.0, alias="lambda")
    """Weight of the distillation of action logits, a number or a schedule."""
    tau: Temperature = 4.0
    """Temperature of that distillation, a number or a schedule."""
    gamma: NotNegative = 0.0
    """Weight of feature distillation."""


class FinetuneConfig(Section):
    """Fine-tuning: train the backbone with a fresh head on action labels (PCL's protocol). It is a trial of its own."""

    data: DataConfig | None = None
    """Videos to fine-tune on. Default: the trial's data. Another data set must be given in full."""
    clip: FinetuneClip = FinetuneClip()
    normalize: bool = True
    """Normalise frames, as in pre-training. PCL's ft_classify.py does not, though PCL's pre-training does."""
    augment: FinetuneAugment = FinetuneAugment()
    optimizer: FinetuneOptimizer = FinetuneOptimizer()
    frozen: Frozen = "none"
    """`backbone` trains only the head, on fixed features (linear classification)."""
    distil: FinetuneDistil = FinetuneDistil()
    epochs: Count = 150
    """Number of epochs to fine-tune."""

    def clip_after(self, clip: ClipConfig) -> ClipConfig:
        """Return fine-tuning's clips after pre-training on `clip`. Raises ValidationError where they are invalid."""
        own = self.clip.model_dump(exclude_none=True)
        fields = clip.model_dump() | {"normalize": self.normalize}
        return ClipConfig.model_validate(fields | ({"resize": None} if "size" in own else {}) | own)

    @property
    def distils(self) -> bool:
        """Whether a teacher has an effect."""
        return max(largest(self.distil.lambda_), self.distil.gamma) > 0

    @property
    def loss(self) -> LossConfig:
        distil = self.distil.model_dump(by_alias=True)
        return LossConfig.model_validate({"target": "action", **distil})
