"""What a trial's records hold, as types for their writers and readers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from kdtune.parse import JsonObject

#: The figures of an evaluation: split → metric → value.
Scores = Mapping[str, Mapping[str, float]]
#: The outcome of every video: split → metric → one digit per video (config.metrics.PER_VIDEO).
PerVideo = Mapping[str, Mapping[str, str]]


class MachineProfile(TypedDict):
    """What a trial's bits depend on besides its configuration and data."""

    device: str
    device_kind: str
    """cpu or cuda."""
    cpu: str | None
    """The processor beside a GPU; None if the trial trains on the processor itself."""
    cpu_capability: str
    """The vector instructions that torch uses."""
    switches: str
    """Environment variables that change a library's arithmetic, with their values."""
    arithmetic: str
    """Digest of sample computations (train/arithmetic.py)."""
    torch: str
    torchvision: str | None
    """None if none of its code is in the network."""
    cuda: str | None
    cudnn: int | None
    numpy: str
    system: str
    threads: int
    precision: str
    frames: str
    """Digest of the decoded frames."""


class ProfileFrom(TypedDict):
    """A profile and the first epoch that was trained under it."""

    epoch: int
    profile: MachineProfile


class EpochRecord(TypedDict, total=False):
    """A row of epochs.jsonl. Every row has the entries down to `at`."""

    epoch: int
    lr: float
    train: dict[str, float]
    """Means over the epoch: the loss, its terms, and the head's accuracy."""
    samples_sha256: str
    """Digest of all samples drawn so far."""
    seconds: float
    at: float
    """When the epoch ended, in seconds since 1970."""
    scheduled: dict[str, float]
    """The values of scheduled weights in this epoch."""
    validation: dict[str, float]
    """The head's scores, if the trainer watches them after every epoch."""
    evaluation: Scores
    stage: str
    """Name of the stage that ends here."""
    per_video: PerVideo
    """The outcomes whose means the stage's evaluation reports, in the order of the split's videos."""
    weights_sha256: str
    """Digest of the weights that were evaluated."""
    optimizer_sha256: str
    targets_computed: int
    """Number of samples whose targets the trial computed."""
    targets_found: int
    """Number of samples whose targets the trial found in the store."""


class MeasuredCost(TypedDict, total=False):
    """The part of a result that says what the trial costs."""

    cost: dict[str, float]
    cost_unmeasured: str
    """Why some figures could not be measured."""


class ResultRecord(MeasuredCost, total=False):
    """The content of result.json. Every result has the entries down to `profile`."""

    epochs: int
    stages: dict[str, Scores]
    weights_sha256: str
    seconds: float
    profile: MachineProfile | None
    """The last profile; None for imported weights."""
    kept_epoch: int
    """The epoch whose weights the trial ended with."""
    earlier_profiles: list[ProfileFrom]
    origins: dict[str, str]
    """SHA-256 of the weights of its teacher and start."""
    imported: JsonObject
    """The file that imported weights came from: source, layout, heads, sha256."""
