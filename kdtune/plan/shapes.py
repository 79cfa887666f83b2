"""What trials have in common that take the same time for a sample: their shape, and from which data and teacher.

All of it is read from a trial's canonical form, which is also what its config.json in the store holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdtune.config.key import digest
from kdtune.config.schedules import largest
from kdtune.config.trial import TrialConfig
from kdtune.config.view import seen

Form = Mapping[str, Any]
#: Of the loss: what the time and the size of its contrastive term depend on.
CONTRAST = ("contrast", "negatives", "projection")
#: loss field → what it distils, as `Targets` names it.
KINDS = {"lambda": "logits", "beta": "relations", "gamma": "features"}


def kinds(form: Form) -> list[str]:
    """What of its teacher a trial learns; empty for one without."""
    return [kind for name, kind in KINDS.items() if largest(form["loss"].get(name, 0)) > 0]


def shape(form: Form, teacher: Form | None, device_kind: str) -> str:
    """The digest of all that decides how long a sample takes, but for the very device ("cpu" or "cuda")."""
    loss = form["loss"]
    return digest(
        {
            **{name: form[name] for name in ("student", "clip", "augment", "precision", "threads", "memory_format")},
            "target": loss["target"],
            **({"frozen": form["frozen"]} if "frozen" in form else {}),
            "batch": form["optimizer"]["batch"],
            "contrast": [loss.get(name) for name in CONTRAST] if _contrasts(form) else None,
            "teacher": [kinds(form), teacher["student"], *_viewed(form, teacher)] if teacher is not None else None,
            "clips": form["evaluation"]["clips"],
            "kept": form["stage"]["weights"],
            "watches": watches(form),
            "device": device_kind,
        }
    )


def _viewed(form: Form, teacher: Form) -> list[Any]:
    """What the teacher sees, where its student sees something else."""
    return [] if seen(form["clip"]) == seen(teacher["clip"]) else [seen(teacher["clip"]), teacher["clip"].get("resize")]


def described(config: TrialConfig) -> str:
    """A shape, for people."""
    taught = f" taught by {config.teacher.architecture}" if config.distils and config.teacher is not None else ""
    clip = f"{config.clip.frames} frames of {config.clip.size}²"
    target = ", actions" if config.loss.target == "action" else ""
    return f"{config.architecture}{taught} ({clip}, batch {config.optimizer.batch}{target})"


def videos(form: Form, manifest: str) -> str:
    """The digest of all that decides which videos a trial sees, but for its fraction of them."""
    data = {name: value for name, value in form["data"].items() if name != "fraction"}
    return digest([manifest, data, form["clip"], form["loss"]["target"]])


def stream(form: Form, manifest: str, teacher: str) -> str:
    """The digest of all that decides which targets a trial asks of the teacher with this key, but for its fraction and
    its epochs (see train/targets.py): those of one stream are computed once."""
    parts = {name: form.get(name) for name in ("pretext", "augment", "seed", "threads", "precision")}
    return digest([videos(form, manifest), parts, kinds(form), teacher])


def watches(form: Form) -> bool:
    """Is the validation loss taken after every epoch?"""
    return form["optimizer"].get("schedule") == "plateau" or form["stage"]["weights"] == "best"


def bank_bytes(form: Form, samples: int) -> int:
    """Of the memory bank in a checkpoint: two float32 projections of every training video."""
    held = _contrasts(form) and form["loss"]["contrast"] == "memory_bank"
    return 2 * 4 * samples * form["loss"]["projection"] if held else 0


def target_bytes(form: Form, config: TrialConfig, classes: int) -> int:
    """Of a sample's targets in one epoch, float32: logits, relations (6), features of every clip."""
    features = config.clips * config.teacher.student.features if config.teacher is not None else 0
    numbers = {"logits": classes, "relations": 6, "features": features}
    return 4 * sum(numbers[kind] for kind in kinds(form))


def _contrasts(form: Form) -> bool:
    return form["loss"].get("alpha", 0) > 0
