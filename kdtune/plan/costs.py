"""What trials that are still to be trained cost: seconds of a worker, and bytes on the disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from kdtune.clips.machine import GIB, cores, gpus, memory_bytes
from kdtune.config.key import canonical
from kdtune.config.search import ResourceConfig
from kdtune.config.trial import TrialConfig
from kdtune.plan.forecast import PendingTrial
from kdtune.plan.shapes import bank_bytes, stream, target_bytes
from kdtune.plan.speeds import Scopes, Speeds

#: An epoch's row with its accuracies.
ROW_BYTES = 2000


@dataclass
class Cost:
    """Of several works, all of them trained to their ends."""

    seconds: float = 0.0
    """Of one worker."""
    bytes: float = 0.0
    trials: float = 0.0
    """How many of them these figures are of."""
    devices: set[str] = field(default_factory=set)
    """Where their speeds were measured."""
    unmeasured: dict[str, TrialConfig] = field(default_factory=dict)
    """Shape → a trial of it, for those of which the store does not know how long they take."""


def cost_of(works: Iterable[PendingTrial], speeds: Speeds, scopes: Scopes) -> Cost:
    """Pruning is not foreseen, so that this is at most what they cost. Targets of one stream count once."""
    cost = Cost()
    trained = [(work, canonical(work.config)) for work in works if work.config.imported is None]
    # First of all, for records are understood by the data of what is asked for.
    scoped = [(work, form, scopes.of(work.config, form)) for work, form in trained]
    computed, wanted = speeds.computed(), dict[str, tuple[int, float, int]]()
    for work, form, scope in scoped:
        config = work.config
        shape = speeds.shape(config)
        speed = speeds.of(shape)
        if speed is None:
            cost.unmeasured.setdefault(shape, config)
            continue
        epochs = config.epochs - work.done
        evaluations = sum(work.done < epoch for epoch in _evaluated(config))
        seconds = epochs * scope.load * speed.sample_s + evaluations * scope.evaluated * speed.video_s
        size = speed.checkpoint_bytes + bank_bytes(form, scope.samples)
        cost.seconds += work.times * seconds
        cost.bytes += work.times * (_checkpoints(work) * size + epochs * ROW_BYTES)
        cost.trials += work.times
        cost.devices.add(speed.device)
        if config.distils and config.teacher is not None:
            name = stream(form, scopes.manifest(config), scopes.prepared.key(config.teacher))
            there = computed.get(name, work.done * scope.samples)
            asked = max(wanted.get(name, (0,))[0], config.epochs * scope.samples - there)
            wanted[name] = asked, speed.target_s, target_bytes(form, config, scope.classes)
    for asked, target_s, size in wanted.values():
        cost.seconds += max(0, asked) * target_s
        cost.bytes += max(0, asked) * size
    return cost


def side_by_side(resources: ResourceConfig) -> int:
    """How many trials fit on this machine at once."""
    fits = [cores() / resources.cpu]
    if resources.gpu > 0:
        fits.append(gpus() / resources.gpu)
    if resources.memory is not None:
        fits.append(memory_bytes() / GIB / resources.memory)
    return int(min(fits))


def _evaluated(config: TrialConfig) -> set[int]:
    """The epochs after which the student is evaluated as a whole."""
    every = config.stage.every if config.stage.between == "all" else 0
    return {*config.stage_epochs.values(), *(range(every, config.epochs + 1, every) if every else ())}


def _checkpoints(work: PendingTrial) -> int:
    """Files that come to those that are there: the last one, and those of stages."""
    config = work.config
    stages = [epoch for epoch in config.stage_epochs.values() if work.done < epoch < config.epochs]
    return (work.done == 0) + (len(stages) if config.stage.keep else 0)
