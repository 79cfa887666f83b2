"""Schedulers without trials: a group's outcome is a function of the group."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection
from pathlib import Path

from helpers import sweep_of

from kdtune.config.key import digest
from kdtune.config.sweep import SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.sweep.group import Outcome, TrialGroup
from kdtune.sweep.ledger import Ledger
from kdtune.sweep.prune import reaches
from kdtune.sweep.scheduler import SweepScheduler
from kdtune.sweep.study import Journal

OutcomeOf = Callable[[TrialGroup], Outcome]


def key_of(config: TrialConfig) -> str:
    return digest(config.model_dump(mode="json", by_alias=True))


def outcome_of(group: TrialGroup) -> Outcome:
    """Return a group's outcome, a function of the group: some fail, weak ones stop at the first threshold missed."""
    sweep = sweep_of()
    luck = random.Random(
        f"{group.name} {sorted(group.asked.values.items())}"
    )  # not the keys, which change with every new field
    if group.kind == "candidate" and luck.random() < 0.12:
        return Outcome("failed", error="luck")
    config = group.configs[0]
    quality = 0.7 - 0.2 * abs(math.log(config.loss.lambda_)) + config.student.width / 300 + 0.05 * luck.random()
    stages: dict[str, float] = {}
    for stage, share in {"early": 0.6, "mid": 0.9, "late": 1.0}.items():
        stages[stage] = share * quality + 0.02 * luck.random()
        if not reaches(stages[stage], group.asked.thresholds.get(stage), sweep.objectives[0].mode):
            return Outcome("pruned", stages=stages, stage=stage)
    return Outcome("complete", ((stages["late"],) * len(group.configs),), stages)


def drive(
    sweep: SweepConfig,
    ledger: Path,
    at_once: int = 1,
    order: int = 0,
    stop_after: int | None = None,
    made: dict[str, Outcome] | None = None,
    outcome: OutcomeOf = outcome_of,
    regretted: Collection[str] = (),
) -> SweepScheduler:
    """Run a scheduler as Ray would: up to `at_once` groups in parallel, ending in random order.

    `made` stands for the store: groups in it are found. After `stop_after` ends everything is dropped, as in a crash.
    """
    rng, running, ends = random.Random(order), [], 0
    made = {} if made is None else made
    journal = Journal(ledger.with_suffix(".log"), sweep)
    scheduler = SweepScheduler(sweep, key_of, Ledger(ledger), journal, regretted=regretted)
    while not scheduler.history.complete:
        while len(running) < at_once and (group := scheduler.next_group()) is not None:
            if made_name(group) in made:
                scheduler.finish(group, made[made_name(group)], cached=True)
            else:
                running.append(group)
        if scheduler.history.complete:
            break
        assert running, "nothing runs and nothing may start: it hangs"
        if ends == stop_after:
            return scheduler
        group = running.pop(rng.randrange(len(running)))
        made[made_name(group)] = outcome(group)
        scheduler.finish(group, made[made_name(group)], cached=False)
        ends += 1
    assert not running
    return scheduler


def made_name(group: TrialGroup) -> str:
    """Return what `made` calls a group: a promoted candidate ends once more."""
    return group.name + (f" promoted {group.promotion}" if group.promotion else "")


def ended(scheduler: SweepScheduler) -> list[tuple[TrialGroup, Outcome]]:
    found = [(group, scheduler.history.groups[name].outcome) for name, group in scheduler.groups.items()]
    return [(group, outcome) for group, outcome in found if outcome is not None]


def all_of(scheduler: SweepScheduler) -> dict[str, tuple]:
    return {
        group.name: (dict(group.asked.values), group.asked.keys, dict(group.asked.thresholds), end)
        for group, end in ended(scheduler)
    }
