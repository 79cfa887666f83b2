"""Names by content: the canonical form of a trial and the key that hashes it (DESIGN 4.2)."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

from kdtune.config.schedules import WeightSchedule, largest, simplified
from kdtune.config.sections import DataConfig
from kdtune.config.trial import TrialConfig
from kdtune.config.view import SEEN
from kdtune.parse import JsonObject

#: Raise it by hand when a change alters results; the golden values catch a forgotten one.
#: 3: videos are read as FFmpeg's player shows them (mirrors, edit lists, dropped frames). Trainer and golden values are
#: those of 2, but a trial on such videos sees other frames.
#: 4: PCL's starts of evenly spaced clips (integer arithmetic), PCL's initial weights of R3D and R(2+1)D (PyTorch's
#: defaults; 3 had `student.init: kaiming`), and the intended box filter in tdn_light's smoothing.
#: 5: an evaluation asks about each video under each of the five pretext labels (`evaluation.labels`; 4 had `drawn`),
#: and the row of a stage holds the outcome of every video. Trained weights are those of 4 unless the validation loss
#: steers the learning rate or the choice of weights.
TRAINER_SEMANTICS = 5

#: Data fields that change no figure: where the videos are and how strictly they are checked. The manifest names the
#: videos themselves.
NOT_HASHED = ("root", "lists", "fps", "max_refused", "same_bytes")

#: Fields of `loss` that only the contrastive term uses.
CONTRAST = ("contrast", "temperature", "negatives", "bank_momentum")

#: Returns the manifest of the decoded frames of a data set (`ClipStore.manifest`).
ManifestOf = Callable[[DataConfig], str]


def canonical(config: TrialConfig) -> JsonObject:
    """Return the configuration as JSON values, with defaults filled in and fields without effect left out.

    Teacher, start and fine-tuning are left out as trials of their own; `identity` adds the keys of the first two.
    """
    form = config.model_dump(mode="json", by_alias=True, exclude={"teacher", "start", "imported", "finetune"})
    form["clip"]["resize"] = list(config.clip.stored_size)
    form["student"]["init"] = config.student.initial_weights
    form["stages"] = [[name, epoch] for name, epoch in config.stage_epochs.items()]
    for field in NOT_HASHED:
        del form["data"][field]
    if config.data.train_on == "rest" or config.data.validation == 0:  # without validation, rest and all are equal
        del form["data"]["train_on"]
    if config.data.carve == "groups" or config.data.validation == 0:
        del form["data"]["carve"]
    if config.stage.between == "all" or config.stage.every == 0:
        del form["stage"]["between"]
    if config.evaluation.draws == "fixed" or config.evaluation.transform == "centre":
        del form["evaluation"]["draws"]
    if config.evaluation.features == "pooled":
        del form["evaluation"]["features"]
    del form["clip"]["tier"], form["clip"]["quality"]  # the data's manifest names their pixels
    del form["stage"]["reduce"], form["stage"]["keep"]  # they affect only what is read from the records, and the files
    if config.frozen == "none":
        del form["frozen"]
    loss, optimizer = form["loss"], form["optimizer"]
    for name, value in (("lambda", config.loss.lambda_), ("tau", config.loss.tau)):
        if not isinstance(constant := simplified(value, config.epochs), WeightSchedule):
            loss[name] = constant  # a constant schedule has the same key as its value
    unused: list[tuple[JsonObject, str]] = []
    if not config.distils:
        unused += [(loss, "lambda"), (loss, "beta"), (loss, "gamma")]
    if not config.distils or largest(config.loss.lambda_) == 0:
        unused += [(loss, "tau")]
    if config.loss.target == "action":
        unused += [(form, "pretext"), (form["clip"], "stride"), (form["clip"], "interval"), (loss, "beta")]
        unused += [(form["evaluation"], "labels")]
        unused += [(loss, name) for name in ("alpha", "projection", *CONTRAST)]
    elif config.loss.alpha == 0:
        unused += [(loss, name) for name in CONTRAST]
    elif config.loss.contrast == "in_batch":
        unused += [(loss, "negatives"), (loss, "bank_momentum")]
    if not config.plateau_can_act:
        unused += [(optimizer, name) for name in ("schedule", "patience", "factor", "min_lr")]
    if not config.student.has_depth:
        unused += [(form["student"], "depth")]
    if not config.student.has_width:
        unused += [(form["student"], name) for name in ("width", "init")]
    for section, name in unused:
        section.pop(name, None)
    return form


def restored(form: JsonObject, teacher: TrialConfig | None, start: TrialConfig | None) -> TrialConfig:
    """Return a configuration whose canonical form is `form`. Fields without effect get their defaults."""
    raw = copy.deepcopy(form)
    raw["stages"] = dict(raw["stages"])
    # The canonical form leaves out a schedule without effect, but the default schedule may have one.
    raw["optimizer"].setdefault("schedule", "constant")
    raw |= {"teacher": teacher, "start": start}
    return TrialConfig.model_validate(raw)


def digest(content: Any) -> str:
    """Return the first 32 hex digits of the SHA-256 of `content` as JSON with sorted keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def identity(config: TrialConfig, manifest_of: ManifestOf) -> JsonObject:
    """Return what a trial's key hashes: canonical form, data, the keys of teacher and start, the trainer's semantics.

    For imported weights these are their digest, network, clips and target.
    """
    if config.imported is not None:
        form = canonical(config)
        clip = {name: form["clip"][name] for name in SEEN}
        student = {name: value for name, value in form["student"].items() if name != "init"}
        return {"imported": config.imported, "student": student, "clip": clip, "target": config.loss.target}
    teacher = config.teacher if config.distils else None
    return {
        # An imported teacher's key does not include the frame size that its crops are cut from.
        **({} if config.view is None else {"view": list(config.view.clip.stored_size)}),
        "trial": canonical(config),
        "data": manifest_of(config.data),
        "teacher": trial_key(teacher, manifest_of) if teacher is not None else None,
        "start": trial_key(config.start, manifest_of) if config.start is not None else None,
        "semantics": TRAINER_SEMANTICS,
    }


def trial_key(config: TrialConfig, manifest_of: ManifestOf) -> str:
    """Return the trial's key, its name in the TrialStore."""
    return digest(identity(config, manifest_of))


def folder_key(config: TrialConfig) -> str:
    """Return a key that tells trials apart without their data, which may be missing. It is not the name of a trial."""
    return trial_key(config, lambda data: data.folder)
