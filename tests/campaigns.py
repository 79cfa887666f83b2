"""Campaigns without trials: what a job comes out as is a function of the job."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

from helpers import sweep_of

from kdtune.config.key import digest
from kdtune.config.sweep import SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.sweep.campaign import Campaign
from kdtune.sweep.job import Job, Outcome
from kdtune.sweep.ledger import Ledger
from kdtune.sweep.prune import clears
from kdtune.sweep.study import Journal

OutcomeOf = Callable[[Job], Outcome]


def key_of(config: TrialConfig) -> str:
    return digest(config.model_dump(mode="json", by_alias=True))


def outcome_of(job: Job) -> Outcome:
    """A function of the job alone, as the trainer is: some fail, weak ones stop at the first bar they miss."""
    sweep = sweep_of()
    luck = random.Random(f"{job.name} {sorted(job.values.items())}")  # not the keys: those change with every new field
    if job.kind == "candidate" and luck.random() < 0.12:
        return Outcome("failed", error="luck")
    config = job.configs[0]
    quality = 0.7 - 0.2 * abs(math.log(config.loss.lambda_)) + config.student.width / 300 + 0.05 * luck.random()
    stages: dict[str, float] = {}
    for stage, share in {"early": 0.6, "mid": 0.9, "late": 1.0}.items():
        stages[stage] = share * quality + 0.02 * luck.random()
        if not clears(stages[stage], job.bars.get(stage), sweep.objectives[0].mode):
            return Outcome("pruned", stages=stages, stage=stage)
    return Outcome("complete", (stages["late"],), stages=stages)


def drive(
    sweep: SweepConfig,
    ledger: Path,
    at_once: int = 1,
    order: int = 0,
    stop_after: int | None = None,
    made: dict[str, Outcome] | None = None,
    outcome: OutcomeOf = outcome_of,
) -> Campaign:
    """Run a campaign as Ray would: up to `at_once` jobs side by side, ending in random order.

    `made` stands for the store: what is in it is found. After `stop_after` ends all is dropped, as in a crash.
    """
    rng, running, ends = random.Random(order), [], 0
    made = {} if made is None else made
    campaign = Campaign(sweep, key_of, Ledger(ledger), Journal(ledger.with_suffix(".log"), sweep))
    while not campaign.done:
        while len(running) < at_once and (job := campaign.next_job()) is not None:
            if job.name in made:
                campaign.finish(job, made[job.name], cached=True)
            else:
                running.append(job)
        if campaign.done:
            break
        assert running, "nothing runs and nothing may start: it hangs"
        if ends == stop_after:
            return campaign
        job = running.pop(rng.randrange(len(running)))
        made[job.name] = outcome(job)
        campaign.finish(job, made[job.name], cached=False)
        ends += 1
    assert not running
    return campaign


def ended(campaign: Campaign) -> list[tuple[Job, Outcome]]:
    return [(campaign.jobs[name], outcome) for name, outcome in campaign.outcomes.items()]


def all_of(campaign: Campaign) -> dict[str, tuple]:
    return {job.name: (dict(job.values), job.keys, dict(job.bars), end) for job, end in ended(campaign)}
