"""Names by content: the canonical form of a trial and the key that hashes it (DESIGN 4.2)."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

from kdtune.config.schedules import WeightSchedule, largest, settled
from kdtune.config.sections import DataConfig
from kdtune.config.trial import TrialConfig
from kdtune.config.view import SEEN

#: Raised by hand when a change alters results; the golden values catch a forgotten one.
#: 3: videos are read as FFmpeg's player shows them (mirrors, edit lists, dropped frames). The trainer is that of 2, and
#: so are the golden values, but a trial on such videos sees other frames.
#: 4: PCL's starts of evenly spaced clips (integer arithmetic), PCL's initial weights of R3D and R(2+1)D (PyTorch's
#: defaults; `student.init: kaiming` is what 3 had), and in tdn_light's smoothing the box filter that was meant.
TRAINER_SEMANTICS = 4

#: Where the videos lie and when to complain about them changes no figure; what they are is in the manifest.
NOT_HASHED = ("root", "lists", "max_refused", "same_bytes")

#: The fields of `loss` that only the contrastive term reads.
CONTRAST = ("contrast", "temperature", "negatives", "bank_momentum")

#: Gives the manifest of the frames that a configuration's data set is decoded to (`ClipStore.manifest`).
ManifestOf = Callable[[DataConfig], str]


def canonical(config: TrialConfig) -> dict[str, Any]:
    """The configuration with defaults filled in and everything that has no effect left out.

    Teacher, start and fine-tuning are trials of their own; `identity` names the first two by their keys.
    """
    form = config.model_dump(mode="json", by_alias=True, exclude={"teacher", "start", "imported", "finetune"})
    form["clip"]["resize"] = list(config.clip.stored_size)
    form["student"]["init"] = config.student.initial_weights
    form["stages"] = [[name, epoch] for name, epoch in config.stage_epochs.items()]
    for field in NOT_HASHED:
        del form["data"][field]
    if config.data.train_on == "rest" or config.data.validation == 0:  # without validation the rest is all
        del form["data"]["train_on"]
    if config.data.carve == "groups" or config.data.validation == 0:
        del form["data"]["carve"]
    if config.stage.between == "all" or config.stage.every == 0:
        del form["stage"]["between"]
    if config.evaluation.draws == "fixed" or config.evaluation.transform == "centre":
        del form["evaluation"]["draws"]
    if config.evaluation.features == "pooled":
        del form["evaluation"]["features"]
    del form["clip"]["tier"], form["clip"]["quality"]  # the pixels that they lead to are named by the data's manifest
    del form["stage"]["reduce"], form["stage"]["keep"]  # what is read from the records, and how many files are kept
    if config.frozen == "none":
        del form["frozen"]
    loss, optimizer = form["loss"], form["optimizer"]
    for name, value in (("lambda", config.loss.lambda_), ("tau", config.loss.tau)):
        if not isinstance(constant := settled(value, config.epochs), WeightSchedule):
            loss[name] = constant  # so a schedule that changes nothing has the key of its value
    unused: list[tuple[dict[str, Any], str]] = []
    if not config.distils:
        unused += [(loss, "lambda"), (loss, "beta"), (loss, "gamma")]
    if not config.distils or largest(config.loss.lambda_) == 0:
        unused += [(loss, "tau")]
    if config.loss.target == "action":
        unused += [(form, "pretext"), (form["clip"], "stride"), (form["clip"], "interval"), (loss, "beta")]
        unused += [(loss, name) for name in ("alpha", "projection", *CONTRAST)]
    elif config.loss.alpha == 0:
        unused += [(loss, name) for name in CONTRAST]
    elif config.loss.contrast == "in_batch":
        unused += [(loss, "negatives"), (loss, "bank_momentum")]
    if not config.schedule_acts:
        unused += [(optimizer, name) for name in ("schedule", "patience", "factor", "min_lr")]
    if not config.student.has_depth:
        unused += [(form["student"], "depth")]
    if not config.student.has_width:
        unused += [(form["student"], name) for name in ("width", "init")]
    for section, name in unused:
        section.pop(name, None)
    return form


def restored(form: dict[str, Any], teacher: TrialConfig | None, start: TrialConfig | None) -> TrialConfig:
    """A configuration whose canonical form is `form`: what has no effect gets its default."""
    raw = copy.deepcopy(form)
    raw["stages"] = dict(raw["stages"])
    # Left out where it has no effect; the default may have one.
    raw["optimizer"].setdefault("schedule", "constant")
    # Records of semantics 3 and earlier do not name it.
    raw["student"].setdefault("init", "torch" if raw["student"]["backbone"] == "c3d" else "kaiming")
    raw |= {"teacher": teacher, "start": start}
    return TrialConfig.model_validate(raw)


def digest(content: Any) -> str:
    """The first 32 hex digits of the SHA-256 of `content` as JSON with sorted keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def identity(config: TrialConfig, manifest_of: ManifestOf) -> dict[str, Any]:
    """What a trial's key hashes: canonical form, data, the keys of teacher and start, the trainer's semantics.

    Imported weights are named by what they are, and by the network and the clips that they are for.
    """
    if config.imported is not None:
        form = canonical(config)
        clip = {name: form["clip"][name] for name in SEEN}
        student = {name: value for name, value in form["student"].items() if name != "init"}
        return {"imported": config.imported, "student": student, "clip": clip, "target": config.loss.target}
    teacher = config.teacher if config.distils else None
    return {
        # An imported teacher's key does not say how large the pictures are that its crops are cut from.
        **({} if config.view is None else {"view": list(config.view.clip.stored_size)}),
        "trial": canonical(config),
        "data": manifest_of(config.data),
        "teacher": trial_key(teacher, manifest_of) if teacher is not None else None,
        "start": trial_key(config.start, manifest_of) if config.start is not None else None,
        "semantics": TRAINER_SEMANTICS,
    }


def trial_key(config: TrialConfig, manifest_of: ManifestOf) -> str:
    """The trial's name in the TrialStore."""
    return digest(identity(config, manifest_of))
