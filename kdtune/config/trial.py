"""One trial, field by field: what is left out has the paper's value (sources in each docstring).

KD = Camarena et al., J. Imaging 2024, 10(4), 85. PCL = Tao et al., arXiv 2010.15464, and its published code.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Frozen, keyword-only, no unknown keys; the docstring under a field is its documentation and its schema text."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


class DataConfig(Section):
    """Which videos, and which part of them."""

    dataset: Literal["synthetic", "ucf101", "hmdb51", "folder"] = "ucf101"
    """`folder` is a folder of class folders, with UCF101-style lists and a groups.csv where it has them."""
    root: str | None = None
    """Where the class folders are. Default: data/<dataset>."""
    lists: str | None = None
    """Where the official lists are. Default: the root."""
    split: Literal[1, 2, 3] = 1
    """Which of the official splits."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training videos, the first ones of the one class-balanced order. KD: 1.0, 0.5, 0.25, 0.02."""
    subset_seed: int = 0
    """Fixes that order and which groups are validation."""
    validation: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    """Share of the training list kept for the search, carved by whole groups."""
    max_refused: Share = 0.05
    """More than this share of undecodable files is an error."""

    @property
    def folder(self) -> str:
        return self.root or f"data/{self.dataset}"


class ClipConfig(Section):
    """The shape of a clip and of the tuple of three clips."""

    frames: Annotated[int, Field(ge=4)] = 10
    """T, frames in a clip. KD: 10, PCL: 16. Four chunks of ⌈T/4⌉ must come out (not so for 5, 6 and 9)."""
    size: Annotated[int, Field(ge=16, multiple_of=2)] = 112
    """Side of the square crop in pixels."""
    resize: Annotated[tuple[Count, Count] | None, Field(strict=False)] = None
    """Height and width of the stored frames. Default: 128×171 scaled by size/112."""
    stride: Literal["pcl", "vcop"] = "pcl"
    """Frames between clip starts: pcl = 3 + interval (what PCL's code does), vcop = T + interval (its ancestor)."""
    interval: Annotated[int, Field(ge=0)] = 8
    """Frames between clips, as the lists of VCOP and PCL count them."""
    modality: Literal["residual", "rgb"] = "residual"
    """residual: roll(x, 1, T) − x (PCL)."""

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
    """One draw a clip, the same for its frames (PCL's code; SimCLR's set)."""

    brightness: NotNegative = 0.4
    contrast: NotNegative = 0.4
    saturation: NotNegative = 0.4
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    jitter_p: Share = 0.8
    grey_p: Share = 0.2
    blur_p: Share = 0.5
    blur_sigma: Annotated[tuple[Positive, Positive], Field(strict=False)] = (0.1, 2.0)
    """Least and largest σ of the Gaussian blur, in pixels."""
    flip_p: Share = 0.5
    """Horizontal flip (in PCL's code; KD omits it)."""


class NetworkConfig(Section):
    """A backbone and its size."""

    backbone: Literal["r3d", "r21d", "c3d"] = "r3d"
    depth: Literal[10, 18] = 10
    """Residual networks: 10 = one block a stage (the papers), 18 = two (torchvision's)."""
    width: Annotated[int, Field(ge=4)] = 64
    """Channels of the first stage; features have 8 × width."""


class LossConfig(Section):
    """L = CE(pretext) + alpha · L_contrast + lambda · tau² · KL(teacher ‖ student)."""

    alpha: NotNegative = 0.5
    """Weight of the contrastive term. KD: 0.5."""
    lambda_: NotNegative = Field(default=1.0, alias="lambda")
    """Weight of the distillation term. KD never states it: search it."""
    tau: Positive = 4.0
    """Temperature of the distillation term. KD: 4."""
    contrast: Literal["memory_bank", "in_batch"] = "memory_bank"
    temperature: Positive = 0.07
    """Of the contrastive softmax."""
    negatives: Count = 1024
    """K, drawn uniformly from the memory bank for each sample."""
    bank_momentum: Share = 0.5
    """Share of the old entry that a memory bank keeps at an update."""
    projection: Count = 128
    """Dimension of the projector's output."""


class OptimizerConfig(Section):
    """SGD, as PCL."""

    lr: Positive = 0.01
    momentum: Share = 0.9
    weight_decay: NotNegative = 5e-4
    batch: Annotated[int, Field(ge=2)] = 16
    """Tuples a step; a last batch of one joins the one before (batch normalisation needs two)."""
    schedule: Literal["plateau", "constant"] = "plateau"
    """plateau: on the validation set's pretext cross-entropy."""
    patience: Annotated[int, Field(ge=0)] = 50
    """Epochs without improvement before the rate falls."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    min_lr: NotNegative = 1e-5


class EvaluationConfig(Section):
    """How a frozen network is measured at a stage."""

    clips: Count = 10
    """Evenly spaced centre-crop clips of a video whose features are averaged (PCL's retrieval)."""
    neighbors: Count = 1
    """Training videos that vote, weighted by cosine similarity; 1 is PCL's top-1 retrieval."""


def _none(value: Any) -> Any:
    return None if value == "none" else value


#: Fewest frames and pixels with which every pool of C3D still has something to pool: strides 8 in time, 16 in space.
C3D_MIN_FRAMES, C3D_MIN_SIZE = 8, 16


class TrialConfig(Section):
    """One candidate with one seed. Everything that changes a trial's figures stands here, and nothing else."""

    data: DataConfig = DataConfig()
    clip: ClipConfig = ClipConfig()
    pretext: PretextConfig = PretextConfig()
    augment: AugmentConfig = AugmentConfig()
    student: NetworkConfig = NetworkConfig()
    teacher: Annotated[TrialConfig | None, BeforeValidator(_none)] = None
    """`none`, or a trial of its own: what it leaves out, it takes from this trial."""
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    epochs: Count = 200
    stages: dict[str, Count] | None = None
    """Named epochs at which the student is evaluated, in order. Default: early, mid, late at ¼, ¾ and the whole."""
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = 0
    threads: Count = 1
    """CPU threads of the trainer. Another count gives other bits, so it belongs to the trial, not to the machine."""

    @model_validator(mode="before")
    @classmethod
    def _teacher_inherits(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping) and isinstance(raw.get("teacher"), Mapping):
            return {**raw, "teacher": inherit(raw, raw["teacher"])}
        return raw

    @field_validator("stages")
    @classmethod
    def _stages_rise(cls, stages: dict[str, int] | None) -> dict[str, int] | None:
        if stages is not None:
            epochs = list(stages.values())
            if not epochs or any(a >= b for a, b in pairwise(epochs)):
                raise PydanticCustomError("stages", f"stages must name rising epochs, but got {stages}")
        return stages

    @model_validator(mode="after")
    def _parts_fit(self) -> TrialConfig:
        last = max(self.stage_epochs.values())
        if last > self.epochs:
            raise PydanticCustomError("stages", f"stages must not lie beyond epochs={self.epochs}, but got {last}")
        if self.student.backbone == "c3d" and (self.clip.frames < C3D_MIN_FRAMES or self.clip.size < C3D_MIN_SIZE):
            raise PydanticCustomError(
                "c3d",
                f"c3d needs clip.frames >= {C3D_MIN_FRAMES} and clip.size >= {C3D_MIN_SIZE}, "
                f"but got frames={self.clip.frames}, size={self.clip.size}",
            )
        return self

    @property
    def stage_epochs(self) -> dict[str, int]:
        """Stage names with the epoch after which each is evaluated."""
        if self.stages is not None:
            return dict(self.stages)
        quarter = max(1, self.epochs // 4)
        wanted = {"early": quarter, "mid": max(1, self.epochs * 3 // 4), "late": self.epochs}
        return {name: epoch for name, epoch in wanted.items() if name == "late" or epoch < self.epochs}

    @property
    def distils(self) -> bool:
        """With lambda = 0 a teacher has no effect: such a trial *is* the scratch trial."""
        return self.teacher is not None and self.loss.lambda_ > 0


def flat_params(config: TrialConfig, teacher: object = None) -> dict[str, Any]:
    """What a trial is, in one row for tables and MLflow; `teacher` is its name in the sweep, else its backbone.

    lambda and tau are None where no teacher makes them matter.
    """
    named = teacher if teacher is not None or config.teacher is None else config.teacher.student.backbone
    return {
        "student": config.student.backbone,
        "teacher": str(named) if config.distils else "none",
        "lambda": config.loss.lambda_ if config.distils else None,
        "tau": config.loss.tau if config.distils else None,
        "alpha": config.loss.alpha,
        "fraction": config.data.fraction,
    }


def inherit(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """A teacher's raw configuration: `override` on top of everything of `base` but base's own teacher."""
    return merge({name: value for name, value in base.items() if name != "teacher"}, override)


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """`override` on top of `base`, section by section; neither is changed."""
    merged = dict(base)
    for name, value in override.items():
        below = merged.get(name)
        # Stages are one value, not a section: naming other stages replaces them all.
        nested = isinstance(below, Mapping) and isinstance(value, Mapping) and name != "stages"
        merged[name] = merge(below, value) if nested else value  # type: ignore[arg-type]
    return merged
