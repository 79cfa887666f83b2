"""What the trials that are still to be trained cost: seconds of one worker, and bytes on the disk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kdtune.clips.dataset import TrialData
from kdtune.clips.machine import GIB, cores, gpus, memory_bytes
from kdtune.config.key import canonical, digest
from kdtune.config.schedules import largest
from kdtune.config.search import ResourceConfig
from kdtune.config.shape import shape_of
from kdtune.config.trial import TrialConfig
from kdtune.plan.forecast import PendingTrial
from kdtune.plan.speeds import FORWARD, Speeds, Work, bank_bytes
from kdtune.train.prepared import Prepared

#: Size of an epoch's row with its accuracies.
ROW_BYTES = 2000


@dataclass
class Cost:
    """The cost of several trials that are all trained to their ends."""

    seconds: float = 0.0
    """Of one worker."""
    bytes: float = 0.0
    trials: float = 0.0
    """Number of trials that the figures cover."""
    devices: set[str] = field(default_factory=set)
    """Devices that the speeds come from."""
    unmeasured: dict[str, TrialConfig] = field(default_factory=dict)
    """Shape → a trial of it, for the shapes whose speed is unknown."""


def cost_of(
    pending: Iterable[PendingTrial], prepared: Prepared, identities: Mapping[str, Mapping[str, Any]], kind: str
) -> Cost:
    """Return the most that the trials cost: pruning is not foreseen, and no target is taken to be in the store.

    `identities` are those of the store's trials by key, `kind` is "cpu" or "cuda". Raises DataError if the data leave a
    trial too few videos.
    """
    cost, speeds = Cost(), Speeds(prepared.store, identities, kind)
    sizes, targets = dict[str, TrialData](), dict[str, tuple[int, float, int]]()
    for trial in pending:
        config = trial.config
        if config.imported is not None:
            continue
        speed = speeds.of(name := shape_of(config, kind))
        if speed is None:
            cost.unmeasured.setdefault(name, config)
            continue
        form, clips, epochs = canonical(config), prepared.clips(config), config.epochs - trial.done
        split = digest([clips.manifest, form["data"], form["clip"], config.loss.target])
        data = sizes.setdefault(split, sizes.get(split) or TrialData.of(config, clips))
        size = speed.checkpoint_bytes + bank_bytes(form, data.size)
        cost.seconds += trial.times * speed.sample_s * work_of(trial).samples(form, data.videos)
        cost.bytes += trial.times * (_checkpoints(trial) * size + epochs * ROW_BYTES)
        cost.trials += trial.times
        cost.devices.add(speed.device)
        if config.distils and config.teacher is not None:  # trials of one teacher and seed share its targets
            stream = digest([name, clips.manifest, form.get("pretext"), config.seed, prepared.key(config.teacher)])
            samples = max(targets.get(stream, (0,))[0], epochs * data.size)
            targets[stream] = (
                samples,
                speed.sample_s,
                4 * sum(map(math.prod, target_shapes(config, data.classes).values())),
            )
    cost.seconds += sum(samples * FORWARD * sample_s for samples, sample_s, _ in targets.values())
    cost.bytes += sum(samples * size for samples, _, size in targets.values())
    return cost


def side_by_side(resources: ResourceConfig) -> int:
    """Return how many trials fit on this machine at once."""
    fits = [cores() / resources.cpu]
    if resources.gpu > 0:
        fits.append(gpus() / resources.gpu)
    if resources.memory is not None:
        fits.append(memory_bytes() / GIB / resources.memory)
    return int(min(fits))


def shape_words(config: TrialConfig) -> str:
    """Return a trial's shape in words."""
    taught = f" taught by {config.teacher.architecture}" if config.distils and config.teacher is not None else ""
    clip = f"{config.clip.frames} frames of {config.clip.size}²"
    target = ", actions" if config.loss.target == "action" else ""
    return f"{config.architecture}{taught} ({clip}, batch {config.optimizer.batch}{target})"


def work_of(trial: PendingTrial) -> Work:
    """Return what is still to be done for a trial, apart from its targets."""
    config, stage = trial.config, trial.config.stage
    left = range(trial.done + 1, config.epochs + 1)
    due = {epoch for epoch in left if stage.every > 0 and epoch % stage.every == 0}
    stages = {epoch for epoch in config.stage_epochs.values() if epoch in left}
    return Work(
        epochs=len(left),
        watched=len(left) if config.watches_validation else 0,
        head=len(due - stages) if stage.between == "head" else 0,
        whole=len(stages if stage.between == "head" else stages | due),
    )


def _checkpoints(trial: PendingTrial) -> int:
    """Return how many checkpoint files a trial adds: the last one and those of its stages."""
    config = trial.config
    stages = [epoch for epoch in config.stage_epochs.values() if trial.done < epoch < config.epochs]
    return (trial.done == 0) + (len(stages) if config.stage.keep else 0)


def target_shapes(config: TrialConfig, classes: int) -> dict[str, tuple[int, ...]]:
    """Return the kinds of targets that a trial learns from, and the shape of each (float32) for one sample."""
    if not config.distils or config.teacher is None:
        return {}
    loss, features = config.loss, (config.clips, config.teacher.student.features)
    kinds = {"logits": (loss.lambda_, (classes,)), "relations": (loss.beta, (6,)), "features": (loss.gamma, features)}
    return {name: shape for name, (weight, shape) in kinds.items() if largest(weight) > 0}
