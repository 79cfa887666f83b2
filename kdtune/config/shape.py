"""The shape of a trial: everything that decides what a training sample costs in time and memory.

It is read from canonical forms, which are also what config.json in the store holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdtune.config.key import canonical, digest
from kdtune.config.schedules import largest
from kdtune.config.trial import TrialConfig
from kdtune.config.view import seen

Form = Mapping[str, Any]
#: Sections that change no sample's cost. Of the last three, a part does.
FREE = ("seed", "data", "pretext", "epochs", "stages", "evaluation", "stage", "optimizer", "loss")
FREE_OF_LOSS = ("tau", "temperature", "bank_momentum")
#: Weights of the loss. Only whether one is zero affects the cost.
LOSS_WEIGHTS = ("alpha", "lambda", "beta", "gamma")


def shape(form: Form, teacher: Form | None, device_kind: str) -> str:
    """Return the digest that trials share if a sample costs them the same on the same device.

    Args:
        form: the trial's canonical form.
        teacher: the canonical form of the teacher it distils from, if any.
        device_kind: "cpu" or "cuda".
    """
    loss = {name: value for name, value in form["loss"].items() if name not in FREE_OF_LOSS}
    loss |= {name: largest(loss[name]) > 0 for name in LOSS_WEIGHTS if name in loss}
    optimizer = form["optimizer"]
    taught: list[Any] = []
    if teacher is not None:
        taught = [teacher["student"]]
        if seen(form["clip"]) != seen(teacher["clip"]):
            taught += [seen(teacher["clip"]), teacher["clip"].get("resize")]
    return digest(
        {
            **{name: value for name, value in form.items() if name not in FREE},
            "loss": loss,
            "batch": optimizer["batch"],
            # With each of these SGD holds another buffer in memory.
            "buffers": [optimizer["momentum"] > 0, optimizer["weight_decay"] > 0],
            "weights": form["stage"]["weights"],
            "teacher": taught,
            "device": device_kind,
        }
    )


def shape_of(config: TrialConfig, device_kind: str) -> str:
    """Return the shape of a trial that is given by its configuration."""
    teacher = canonical(config.teacher) if config.distils and config.teacher is not None else None
    return shape(canonical(config), teacher, device_kind)
