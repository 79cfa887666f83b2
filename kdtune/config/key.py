"""Names by content: the canonical form of a trial and the key that hashes it (DESIGN 4.2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from kdtune.config.sections import DataConfig
from kdtune.config.trial import TrialConfig

#: Raised by hand when a change to the trainer alters results; the golden values catch a forgotten one.
TRAINER_SEMANTICS = 1

#: Where the videos lie and when to complain about them changes no figure; what they are is in the manifest.
NOT_HASHED = ("root", "lists", "max_refused")

#: Gives the digest of the data set that a configuration names.
ManifestOf = Callable[[DataConfig], str]


def canonical(config: TrialConfig) -> dict[str, Any]:
    """The configuration with defaults filled in and everything that has no effect left out (teacher excluded)."""
    form = config.model_dump(mode="json", by_alias=True, exclude={"teacher"})
    form["clip"]["resize"] = list(config.clip.stored_size)
    form["stages"] = [[name, epoch] for name, epoch in config.stage_epochs.items()]
    for field in NOT_HASHED:
        del form["data"][field]
    loss, optimizer = form["loss"], form["optimizer"]
    unused = []
    if not config.distils:
        unused += [(loss, "lambda"), (loss, "tau")]
    if config.loss.alpha == 0:
        unused += [(loss, name) for name in ("contrast", "temperature", "negatives", "bank_momentum")]
    elif config.loss.contrast == "in_batch":
        unused += [(loss, "negatives"), (loss, "bank_momentum")]
    if not config.schedule_acts:
        unused += [(optimizer, name) for name in ("schedule", "patience", "factor", "min_lr")]
    if config.student.backbone == "c3d":
        unused += [(form["student"], "depth")]
    for section, name in unused:
        del section[name]
    return form


def digest(content: Any) -> str:
    """The first 32 hex digits of the SHA-256 of `content` as JSON with sorted keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def identity(config: TrialConfig, manifest_of: ManifestOf) -> dict[str, Any]:
    """What a trial's key hashes: canonical form, data, teacher's key and the trainer's semantics."""
    teacher = config.teacher if config.distils else None
    return {
        "trial": canonical(config),
        "data": manifest_of(config.data),
        "teacher": trial_key(teacher, manifest_of) if teacher is not None else None,
        "semantics": TRAINER_SEMANTICS,
    }


def trial_key(config: TrialConfig, manifest_of: ManifestOf) -> str:
    """The trial's name in the TrialStore."""
    return digest(identity(config, manifest_of))
