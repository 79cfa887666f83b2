"""The configuration of a trial: all fields that change its figures, and the rules between its sections."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from kdtune.config.fields import Count, Section, Seed, broken
from kdtune.config.finetune import FinetuneConfig, FinetuneDistil, Frozen
from kdtune.config.inherit import NESTED, inherit, none_as_null, trial_or_none
from kdtune.config.network import NetworkConfig
from kdtune.config.schedules import largest
from kdtune.config.sections import (
    AugmentConfig,
    ClipConfig,
    DataConfig,
    EvaluationConfig,
    LossConfig,
    OptimizerConfig,
    PretextConfig,
    StageConfig,
)
from kdtune.config.view import check_view, view_of

#: The name of the stage that fine-tuning adds to a trial's own.
FINETUNE_STAGE = "finetune"


class TrialConfig(Section):
    """One candidate with one seed: everything that changes a trial's figures, and nothing else."""

    data: DataConfig = DataConfig()
    clip: ClipConfig = ClipConfig()
    pretext: PretextConfig = PretextConfig()
    augment: AugmentConfig = AugmentConfig()
    student: NetworkConfig = NetworkConfig()
    teacher: Annotated[
        TrialConfig | None, BeforeValidator(trial_or_none, json_schema_input_type=TrialConfig | Literal["none"] | None)
    ] = None
    """`none`, or a trial of its own that teaches this one. Fields that it leaves out are taken from this trial."""
    start: Annotated[
        TrialConfig | None, BeforeValidator(trial_or_none, json_schema_input_type=TrialConfig | Literal["none"] | None)
    ] = None
    """`none`, or a trial of the same network whose trained backbone this trial starts from. Heads start fresh."""
    imported: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None
    """Imported weights, as `teacher import` names them. They are the trial's result: nothing is trained."""
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    frozen: Frozen = "none"
    """`backbone` trains only the heads. The backbone from `start` stays fixed, including its batch statistics."""
    epochs: Count = 200
    """Number of epochs to train."""
    stages: dict[str, Count] | None = None
    """Named epochs at which the student is evaluated, in order. Default: early, mid, late at ¼, ¾ and all epochs."""
    stage: StageConfig = StageConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    finetune: Annotated[
        FinetuneConfig | None,
        BeforeValidator(none_as_null, json_schema_input_type=FinetuneConfig | Literal["none"] | None),
    ] = None
    """`none`, or the fine-tuning after pre-training: `{}` is PCL's protocol. It has its own key, so that several
    fine-tunings share one pre-training."""
    seed: Seed = 0
    """Seed of the initial weights and of all random draws."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads of the trainer. Their number changes the bits, so it belongs to the trial, not to the machine."""
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    """Memory layout of clips and weights. It changes the bits. The faster one depends on network, size and device."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Precision of convolutions and matrix products: `tf32` rounds inputs (CUDA only), `bf16` is torch's autocast."""

    @model_validator(mode="before")
    @classmethod
    def _others_inherit(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping):
            others = {name: raw[name] for name in NESTED if isinstance(raw.get(name), Mapping)}
            return {**raw, **{name: inherit(raw, other) for name, other in others.items()}}
        return raw

    @field_validator("stages")
    @classmethod
    def _stages_rise(cls, stages: dict[str, int] | None) -> dict[str, int] | None:
        if stages is not None:
            if unfit := [name for name in stages if not re.fullmatch(r"\w[\w.-]{0,59}", name)]:  # stages name files
                rule = "stages must have names of letters, digits, `_`, `-` and `.`, 60 at most"
                raise broken(rule, ", ".join(map(repr, unfit)))
            epochs = list(stages.values())
            if not epochs or any(a >= b for a, b in pairwise(epochs)):
                raise broken("stages must name rising epochs", stages)
        return stages

    @model_validator(mode="after")
    def _parts_fit(self) -> TrialConfig:
        last = max(self.stage_epochs.values(), default=0)
        if last > self.epochs:
            raise broken(f"stages must not lie beyond epochs={self.epochs}", last)
        if self.finetune is not None and FINETUNE_STAGE in self.stage_epochs:
            raise broken(f"no stage may be named {FINETUNE_STAGE}, because finetune adds one of that name", self.stages)
        self.student.check(self.clip.frames, self.clip.size, self.memory_format)
        if self.evaluation.features == "conv5":
            self.student.check_conv5(self.clip.size)
        if self.augment.blur_radius >= self.clip.size:
            rule = f"3 × blur_sigma must be less than clip.size={self.clip.size}"
            raise broken(rule, self.augment.blur_sigma[1])
        if self.loss.target == "action" and self.loss.beta > 0:
            rule = "loss.beta needs the three clips of a tuple: it must be 0 where loss.target is action"
            raise broken(rule, self.loss.beta)
        if self.start is not None and self.start.architecture != self.architecture:
            raise broken(f"start must be of the same network {self.architecture}", self.start.architecture)
        if self.teacher is not None and self.distils:
            self._teacher_fits(self.teacher)
        if self.frozen == "backbone" and self.start is None and self.imported is None:
            raise broken("frozen: backbone needs a start", "none")
        if self.frozen == "backbone" and self.distils and max(self.loss.beta, self.loss.gamma) > 0:
            rule = "beta and gamma must be 0 where frozen is backbone: a frozen backbone cannot learn from features"
            raise broken(rule, f"{self.loss.beta} and {self.loss.gamma}")
        try:
            _ = self.finetuned
        except ValidationError as error:
            reasons = "; ".join(found["msg"] for found in error.errors())
            raise PydanticCustomError("finetune", f"in fine-tuning {reasons}") from error
        return self

    def _teacher_fits(self, teacher: TrialConfig) -> None:
        """Raise PydanticCustomError where the teacher cannot see the student's samples or has other labels."""
        check_view(self.clip, teacher.clip, self.augment.per)
        if largest(self.loss.lambda_) > 0 and teacher.loss.target != self.loss.target:
            rule = f"the teacher's loss.target must be the student's {self.loss.target} where lambda > 0"
            raise broken(rule, teacher.loss.target)

    @property
    def stage_epochs(self) -> dict[str, int]:
        """Stage → epoch after which it is evaluated; empty where nothing is trained."""
        if self.imported is not None:
            return {}
        if self.stages is not None:
            return dict(self.stages)
        by_epoch = {max(1, self.epochs * 3 // 4): "mid", max(1, self.epochs // 4): "early", self.epochs: "late"}
        return {name: epoch for epoch, name in sorted(by_epoch.items())}  # a short trial has fewer stages

    @property
    def milestones(self) -> dict[str, int]:
        """Stage → epoch, including the end of fine-tuning, whose epochs are added to those of pre-training."""
        if self.finetune is None:
            return self.stage_epochs
        return {**self.stage_epochs, FINETUNE_STAGE: self.epochs + self.finetune.epochs}

    @property
    def architecture(self) -> str:
        """What determines the shapes of the backbone's weights, as in `r3d depth 10 width 64`."""
        student = self.student
        parts: list[str] = [student.backbone]
        parts += [f"depth {student.depth}"] if student.has_depth else []
        parts += [f"width {student.width}"] if student.has_width else []
        parts += [f"at {self.clip.frames} frames of {self.clip.size}²"] if student.has_position_tables else []
        return " ".join(parts)

    @property
    def distils(self) -> bool:
        """Whether the teacher has an effect. With all its weights at 0 the trial *is* the scratch trial."""
        return self.teacher is not None and max(largest(self.loss.lambda_), self.loss.beta, self.loss.gamma) > 0

    @property
    def view(self) -> TrialConfig | None:
        """A trial whose training samples are this trial's as its teacher sees them; None where both see the same."""
        teacher = self.teacher if self.distils and isinstance(self.teacher, TrialConfig) else None
        if teacher is None or (clip := view_of(self.clip, teacher.clip)) is None:
            return None
        return self.model_copy(update={"clip": clip, "teacher": None, "start": None, "finetune": None})

    @property
    def clips(self) -> int:
        """Clips per training sample: 3 for pretext tuples, 1 for actions."""
        return 3 if self.loss.target == "pretext" else 1

    @property
    def asks_each_label(self) -> bool:
        """Whether an evaluation asks about each video under each of the five pretext labels."""
        return self.loss.target == "pretext" and self.evaluation.labels == "each"

    @property
    def frames_needed(self) -> int:
        """Minimum frames of a video; shorter videos are left out."""
        return self.clip.tuple_frames if self.loss.target == "pretext" else self.clip.frames

    @property
    def watches_validation(self) -> bool:
        """Whether the trainer needs the validation loss after every epoch."""
        return self.plateau_can_act or self.stage.weights == "best"

    @property
    def finetuned(self) -> TrialConfig | None:
        """The trial that fine-tunes this one; None without `finetune`."""
        if (own := self.finetune) is None:
            return None
        shared = ("student", "evaluation", "seed", "threads", "memory_format", "precision")
        return TrialConfig(
            **{name: getattr(self, name) for name in shared},
            augment=AugmentConfig(**own.augment.model_dump()),
            optimizer=OptimizerConfig(**own.optimizer.model_dump()),
            frozen=own.frozen,
            epochs=own.epochs,
            data=own.data or self.data,
            clip=own.clip_after(self.clip),
            teacher=self.finetuned_teacher,
            start=self.model_copy(update={"finetune": None}),
            loss=own.loss,
            stages={FINETUNE_STAGE: own.epochs},
            stage=StageConfig(reduce=self.stage.reduce, weights="best"),
        )

    @property
    def finetuned_teacher(self) -> TrialConfig | None:
        """The trial that teaches during fine-tuning; None where none does."""
        teacher, own = self.teacher, self.finetune
        if own is None or not isinstance(teacher, TrialConfig) or not own.distils:
            return None
        if teacher.loss.target == "action":
            return teacher
        return teacher.model_copy(update={"finetune": own.model_copy(update={"distil": FinetuneDistil()})}).finetuned

    @property
    def needs(self) -> list[TrialConfig]:
        """The trials that must be complete before this one starts: its teacher and its start."""
        if self.imported is not None:
            return []
        return [other for other in (self.teacher if self.distils else None, self.start) if other is not None]

    def lineage(self) -> Iterator[TrialConfig]:
        """Yield this trial and all trials that it needs or leads to: teachers and starts (also theirs), fine-tuning."""
        yield self
        if (view := self.view) is not None and view.clip.stored_size != self.clip.stored_size:
            yield view  # other frames of the same videos
        for other in self.needs:
            yield from other.lineage()
        yield from () if (finetuned := self.finetuned) is None else (finetuned,)
        if (teacher := self.finetuned_teacher) is not None:
            yield from teacher.lineage()

    @property
    def plateau_can_act(self) -> bool:
        """Whether the plateau schedule can act.

        A plateau is detected after `patience` + 2 epochs at the earliest and affects the next epoch. In a shorter trial
        the schedule cannot change a bit, and counts as constant.
        """
        return self.optimizer.schedule == "plateau" and self.epochs >= self.optimizer.patience + 3
