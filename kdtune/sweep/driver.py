"""The `sweep` command's work: prepare, search, train, publish; what is said on the way."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdtune.config.metrics import column
from kdtune.config.sweep import SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import EXIT_FAILED_TRIALS, EXIT_INTERRUPTED, EXIT_OK
from kdtune.files import write_json
from kdtune.store import TARGET_COUNTS, Store
from kdtune.sweep.campaign import Campaign
from kdtune.sweep.interrupts import Interrupts
from kdtune.sweep.job import Job, Outcome
from kdtune.sweep.prepare import prepare_sweep, refuse
from kdtune.tracking.publish import Publisher, TrackedTrial

Say = Callable[[str], object]


@dataclass(frozen=True)
class Ending:
    """How a sweep ended."""

    exit_code: int
    seconds: float
    trained: int
    """Trials that this run trained, teachers included."""
    found: int
    """Trials that were in the store."""
    targets: Counter[str]
    """Of this run's epochs: `targets_computed` and `targets_found`, in samples."""
    notes: list[str]

    def account(self, store: str) -> list[str]:
        """What was made, what was found in `store`, and how long it took: lines for people."""
        minutes, rest = divmod(round(self.seconds), 60)
        took = f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
        lines = [f"{self.trained} trials trained, {self.found} found in {store}; {took}."]
        if self.targets:
            computed, found = (self.targets[name] for name in TARGET_COUNTS)
            lines.append(f"Teachers' targets, one a sample and epoch: {computed:,} computed, {found:,} found.")
        return lines


def drive(sweep: SweepConfig, text: str, store: Store, address: str | None, uri: str, say: Say) -> Ending:
    """Run `sweep` (whose file reads `text`) or go on with it; raises UserError before anything is trained.

    SIGINT and SIGTERM end it with EXIT_INTERRUPTED after MLflow has been told; the same call then goes on.
    """
    started = time.monotonic()
    say(f"{sweep.name}: {sweep.question}" if sweep.question else sweep.name)
    refuse(sweep, address)
    prepared = prepare_sweep(sweep, store)
    files = store.sweep(sweep.name)
    ledger = files.ledger(sweep.ledger)
    write_json(files.sweep, sweep_record(sweep, text, ledger))
    publisher = Publisher(uri, sweep.experiment, sweep.name, sweep.question, text, files.mlflow)
    watch = _Watch(sweep, store, publisher, say)

    def key_of(config: TrialConfig) -> str:
        prepared.prepare(config)
        return prepared.key(config)

    state = "interrupted"
    with Interrupts() as interrupts:
        try:
            campaign = watch.campaign = Campaign(sweep, key_of, ledger, watch.on_end)
            first = campaign.next_to_train(store)
            if first is not None:
                from kdtune.sweep.run import run_campaign

                run_campaign(campaign, first, prepared, address, watch.on_row, interrupts)
            state = "complete"
        except KeyboardInterrupt:
            say("interrupted: the same command goes on from the last checkpoints")
        finally:
            unsent = publisher.close(state)
    failed = any(outcome.state == "failed" for outcome in campaign.outcomes.values())
    code = EXIT_INTERRUPTED if state == "interrupted" else EXIT_FAILED_TRIALS if failed else EXIT_OK
    found = trained = 0
    for name, outcome in campaign.outcomes.items():
        job = campaign.jobs[name]
        trials = len(job.keys) + (len(job.finetuned) if outcome.state == "complete" else 0)
        found, trained = (found + trials, trained) if name in campaign.cached else (found, trained + trials)
    return Ending(code, time.monotonic() - started, trained, found, watch.targets, campaign.notes + unsent)


def sweep_record(sweep: SweepConfig, text: str, ledger: Path) -> dict[str, Any]:
    """What `results` needs to know of a sweep beside its ledger."""
    return {
        "name": sweep.name,
        "question": sweep.question,
        "experiment": sweep.experiment,
        "ledger": ledger.name,
        "blocks": {block.label: sweep.candidates(block) for block in sweep.blocks()},
        "stages": sweep.trial.milestones,
        "objective": {**sweep.objective.model_dump(), "column": _column(sweep)},
        "text": text,
    }


def _column(sweep: SweepConfig) -> str:
    return column(sweep.objective.metric, sweep.trial.stage.reduce)


class _Watch:
    """Tells the terminal and MLflow what happens, in plain lines that read well in a log file."""

    campaign: Campaign

    def __init__(self, sweep: SweepConfig, store: Store, publisher: Publisher, say: Say) -> None:
        self.sweep, self.store, self.publisher, self.say = sweep, store, publisher, say
        self.started, self._began = time.monotonic(), time.time()
        self.targets: Counter[str] = Counter()
        self._seen: set[tuple[str, str]] = set()

    def on_row(self, job: Job, key: str, row: dict[str, Any]) -> None:
        self._publish(job, key, "running", None)
        if row["at"] >= self._began:  # else it is of an earlier run, handed over by a trial that goes on
            self.targets.update({name: row[name] for name in TARGET_COUNTS if name in row})
        if "stage" in row and (key, row["stage"]) not in self._seen:
            self._seen.add((key, row["stage"]))
            figures = row["evaluation"][self.sweep.objective.split]
            # What an action head is measured by is not there before fine-tuning.
            metric = _column(self.sweep) if _column(self.sweep) in figures else "knn"
            seed = f" seed {_seed(job, key)}" if len(job.seeds) > 1 else ""
            self._line(f"{job.name}{seed} · {row['stage']}: {metric} {figures[metric]:.3f}")

    def on_end(self, job: Job, outcome: Outcome) -> None:
        for key in job.keys:
            self._publish(job, key, outcome.state, outcome.objective)
        for key in job.finetuned if outcome.state == "complete" else ():
            self._publish(job, key, outcome.state, None)
        if job.name not in self.campaign.cached:
            what = {
                "complete": "complete" if outcome.objective is None else f"complete, objective {outcome.objective:.3f}",
                "pruned": f"pruned at {outcome.stage}: below {job.bars.get(outcome.stage or '', 0):.3f}",
                "failed": f"failed: {outcome.error}",
            }[outcome.state]
            self._line(f"{job.name} · {what}")

    def _line(self, text: str) -> None:
        done = f"{len(self.campaign.outcomes):3d}/{self.campaign.total}"
        self.say(f"[{time.monotonic() - self.started:6.0f} s · {done}] {text}")

    def _publish(self, job: Job, key: str, state: str, objective: float | None) -> None:
        params = {
            **job.params[_index(job, key)],
            "seed": _seed(job, key),
            "control": job.kind == "control",
            "block": job.block.label if job.block else None,
            "key": key,
        }
        tags = {"kdtune.kind": job.kind, "kdtune.cached": str(job.name in self.campaign.cached).lower()}
        tags["kdtune.phase"] = "finetune" if key in job.finetuned else "train"
        self.publisher.update(TrackedTrial(self.store.trial(key), _run_name(job, key), params, tags, state, objective))


def _index(job: Job, key: str) -> int:
    """The place of a trial, or of its fine-tuning, among the job's seeds."""
    return (job.finetuned if key in job.finetuned else job.keys).index(key)


def _seed(job: Job, key: str) -> int:
    return job.seeds[_index(job, key)]


def _run_name(job: Job, key: str) -> str:
    """What tells runs apart comes first: MLflow's table cuts names short."""
    if job.block is None:
        return job.name
    what = f"{job.number} · {job.params[_index(job, key)]['teacher']}" if job.kind == "candidate" else "control"
    seed = f" · seed {_seed(job, key)}" if len(job.seeds) > 1 else ""
    phase = " · finetune" if key in job.finetuned else ""
    return f"{what}{phase} · {job.block.label}{seed}"
