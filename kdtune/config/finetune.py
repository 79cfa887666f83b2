"""Fine-tuning: what follows pre-training, as PCL's ft_classify.py does it where nothing else is said."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from kdtune.config.fields import Count, NotNegative, Positive, Section, Side
from kdtune.config.schedules import Temperature, Weight, largest
from kdtune.config.sections import AugmentConfig, ClipConfig, DataConfig, LossConfig, OptimizerConfig

#: What of a network is not trained.
Frozen = Literal["none", "backbone"]


class FinetuneAugment(AugmentConfig):
    """Fine-tuning only crops (PCL's ft_classify.py)."""

    jitter_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    grey_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    blur_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    flip_p: Annotated[float, Field(ge=0, le=1)] = 0.0


class FinetuneOptimizer(OptimizerConfig):
    """PCL's ft_classify.py."""

    lr: Positive = 1e-3
    batch: Annotated[int, Field(ge=2, le=1_000_000)] = 8
    patience: Annotated[int, Field(ge=0, le=10_000_000)] = 30


class FinetuneClip(Section):
    """The fields of the clips that differ from pre-training; those left out stay as they are."""

    frames: Annotated[int, Field(ge=4, le=4096)] | None = None
    size: Annotated[int, Field(ge=16, le=4096, multiple_of=2)] | None = None
    resize: Annotated[tuple[Side, Side] | None, Field(strict=False)] = None
    """Default: that of pre-training, or 128×171 scaled by size/112 where `size` is given."""
    modality: Literal["residual", "rgb"] | None = None


class FinetuneDistil(Section):
    """L = CE(action) + lambda · tau² · KL + gamma · features, from the trial's teacher; without one, CE alone.

    A teacher that learned actions teaches as it is; any other is first fine-tuned as its student, but alone.
    """

    lambda_: Weight = Field(default=0.0, alias="lambda")
    """Weight of the distillation of action logits, a number or a schedule."""
    tau: Temperature = 4.0
    gamma: NotNegative = 0.0
    """Weight of feature distillation."""


class FinetuneConfig(Section):
    """After pre-training: the backbone with a fresh head on action labels (PCL's protocol). A trial of its own key."""

    data: DataConfig | None = None
    """Default: the trial's own. Another data set is given whole."""
    clip: FinetuneClip = FinetuneClip()
    normalize: bool = True
    """Normalise frames, as in pre-training. PCL's ft_classify.py does not, though its backbones were trained so."""
    augment: FinetuneAugment = FinetuneAugment()
    optimizer: FinetuneOptimizer = FinetuneOptimizer()
    frozen: Frozen = "none"
    """`backbone`: only the head learns, on features that stay as they are (linear classification)."""
    distil: FinetuneDistil = FinetuneDistil()
    epochs: Count = 150

    def clip_after(self, clip: ClipConfig) -> ClipConfig:
        """Return the clips of fine-tuning after pre-training on `clip`. Raises ValidationError where they cannot be."""
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

    @property
    def sections(self) -> dict[str, Any]:
        """The sections of the fine-tuning trial that do not depend on what it fine-tunes."""
        return {
            "augment": AugmentConfig(**self.augment.model_dump()),
            "optimizer": OptimizerConfig(**self.optimizer.model_dump()),
            "frozen": self.frozen,
            "epochs": self.epochs,
        }
