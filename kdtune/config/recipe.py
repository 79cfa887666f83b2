"""The recipe of a trial: the fields that people ask for first, and every field that is not at its default."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from kdtune.config.finetune import FinetuneConfig
from kdtune.config.key import canonical
from kdtune.config.trial import TrialConfig
from kdtune.parse import JsonObject

#: Shown even at their defaults: epochs, stages, batch, rate and sizes.
ALWAYS = (
    *("epochs", "stages", "optimizer.batch", "optimizer.lr", "clip.frames", "clip.size", "student.width"),
    *("finetune.epochs", "finetune.optimizer.batch", "finetune.optimizer.lr"),
)
#: Trials of their own, and what a sweep shows by other names.
APART = {"teacher", "start", "imported"}


def recipe(config: TrialConfig) -> dict[str, str]:
    """Return path → value, as in `optimizer.batch` → `16`: those of ALWAYS, then all that differ from the defaults."""
    form = _flat(config.model_dump(mode="json", by_alias=True, exclude=APART))
    form["stages"] = _text(config.stage_epochs)
    return _shown(form, _defaults())


def recorded_recipe(form: JsonObject, start: JsonObject | None = None) -> dict[str, str]:
    """Return the recipe of a recorded trial from its canonical form (kdtune/config/key.py), which may be of any shape.

    For a fine-tuning, `start` is the form of the trial that it starts from: of what does not differ from that, only
    epochs, batch and rate are returned.
    """
    if start is None:
        return _shown(_flat(form), _canonical_defaults())
    before = _flat(start)
    named = ("epochs", "optimizer.batch", "optimizer.lr")
    return {path: value for path, value in _flat(form).items() if path in named or before.get(path) != value}


def _shown(form: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    first = {path: form[path] for path in ALWAYS if path in form}
    return first | {path: value for path, value in form.items() if defaults.get(path) != value}


@cache
def _defaults() -> dict[str, str]:
    found = _flat(TrialConfig().model_dump(mode="json", by_alias=True, exclude=APART))
    return found | _flat({"finetune": FinetuneConfig().model_dump(mode="json", by_alias=True)})


@cache
def _canonical_defaults() -> dict[str, str]:
    return _flat(canonical(TrialConfig()))


def _flat(form: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in form.items():
        if isinstance(value, Mapping) and f"{prefix}{name}" != "stages":
            found |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[f"{prefix}{name}"] = _text(value)
    return found


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(each)}" for name, each in value.items())
    if isinstance(value, list):
        pairs = all(isinstance(each, list) for each in value)
        return ", ".join(" ".join(map(str, each)) if pairs else str(each) for each in value)
    return str(value)
