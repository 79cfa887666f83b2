"""One trial: everything that changes its figures, and the rules between its sections."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, field_validator, model_validator
from pydantic_core import PydanticCustomError

from kdtune.config.sections import (
    AugmentConfig,
    ClipConfig,
    Count,
    DataConfig,
    EvaluationConfig,
    LossConfig,
    NetworkConfig,
    OptimizerConfig,
    PretextConfig,
    Section,
)


def _none(value: Any) -> Any:
    if isinstance(value, str) and value != "none":
        rule = "a teacher is given here as a trial; by its name it is chosen in a sweep's search.space or search.blocks"
        raise PydanticCustomError("teacher", f"{rule}, but got {value!r}")
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
    teacher: Annotated[
        TrialConfig | None, BeforeValidator(_none, json_schema_input_type=TrialConfig | Literal["none"] | None)
    ] = None
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
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    """Layout of clips and weights in memory. Which is faster depends on network, size and device; bits differ."""

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
        if self.augment.blur_radius >= self.clip.size:
            widest = self.augment.blur_sigma[1]
            raise PydanticCustomError(
                "sigma", f"3 × blur_sigma must be less than clip.size={self.clip.size}, but got {widest}"
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

    @property
    def schedule_acts(self) -> bool:
        """A plateau is seen after `patience` + 2 epochs at the soonest and acts on the next one.

        In a shorter trial the schedule cannot change a bit: it counts as constant.
        """
        return self.optimizer.schedule == "plateau" and self.epochs >= self.optimizer.patience + 3


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
