"""Run a campaign: what the store already holds is looked up, the rest goes through Ray Tune."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.search import Searcher

from kdtune.clips.catalog import load_catalog
from kdtune.clips.cores import cores
from kdtune.config.space import Scalar, resolve
from kdtune.config.sweep import ResourceConfig, SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import DataError, Problem, ResourceError, UserError
from kdtune.store import Store
from kdtune.sweep.campaign import Campaign
from kdtune.sweep.interrupts import Interrupts
from kdtune.sweep.job import Job, Outcome, outcome_in_store
from kdtune.sweep.worker import TrialWorker
from kdtune.train.session import Session, source_id

#: Is told of every row that a worker reports: the job, the trial's key, the row.
OnRow = Callable[[Job, str, dict[str, Any]], object]

#: Ray Tune's own logs, snapshots and signal handling would repeat what the TrialStore, MLflow and we do.
_TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class Dispatcher(Searcher):
    """Hands jobs to Ray Tune in the campaign's order and takes note of their ends.

    For Ray this is a search algorithm: `suggest` gives the next trial's configuration, None for "not now".
    """

    def __init__(self, campaign: Campaign, session: Session, device: str) -> None:
        super().__init__()
        self.campaign, self.session, self.device = campaign, session, device
        self._running: dict[str, Job] = {}
        self._next: Job | None = None

    def find(self) -> bool:
        """Settle what the store already holds. Is there a job that has to be run?"""
        while self._next is None:
            job = self.campaign.next_job()
            if job is None:
                return False
            outcome = outcome_in_store(job, self.campaign.sweep.objective, self.session.store)
            if outcome is None:
                self._next = job
            else:
                self.campaign.finish(job, outcome, cached=True)
        return True

    def suggest(self, trial_id: str) -> Any:
        if not self.find():
            return Searcher.FINISHED if self.campaign.done else None
        assert self._next is not None
        job, self._next = self._next, None
        self._running[trial_id] = job
        return {
            "job": job,
            "objective": self.campaign.sweep.objective,
            "session": self.session,
            "device": self.device,
        }

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        job = self._running.pop(trial_id)
        outcome = outcome_in_store(job, self.campaign.sweep.objective, self.session.store)
        if outcome is None:
            recorded = (self.session.store.trial(key).failure() for key in job.keys)
            died = "its process died (killed, or out of memory)"
            outcome = Outcome("failed", error=next((text for text in recorded if text), died))
        self.campaign.finish(job, outcome, cached=False)

    # Ray pickles and snapshots a search algorithm and its callbacks, to restore them. The ledger is our snapshot.
    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass


class _Rows(tune.Callback):
    """Passes what workers report to `on_row`, and ends the sweep where an interrupt was swallowed."""

    def __init__(self, on_row: OnRow, interrupts: Interrupts) -> None:
        self.on_row, self.interrupts = on_row, interrupts

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        self.interrupts.check()

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        if "row" in result:
            self.on_row(trial.config["job"], result["key"], result["row"])


def run_campaign(
    campaign: Campaign, session: Session, address: str | None, on_row: OnRow, interrupts: Interrupts
) -> None:
    """Bring every job of `campaign` to its end. Ray starts only where something has to be trained.

    Raises ResourceError, before Ray starts a trial, where a trial can never fit.
    """
    sweep = campaign.sweep
    dispatcher = Dispatcher(campaign, session, "cuda" if sweep.resources.gpu > 0 else "cpu")
    if not dispatcher.find():
        return
    os.environ.update(_TUNE_SETTINGS)
    ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    interrupts.listen()  # Ray has just put its own handler there
    scratch = tempfile.mkdtemp(prefix="kdtune-ray-")
    try:
        total = ray.cluster_resources()
        problems = check_resources(sweep.resources, total.get("CPU", 0), total.get("GPU", 0))
        if problems:
            raise ResourceError(problems)
        tune.Tuner(
            tune.with_resources(TrialWorker, {"cpu": sweep.resources.cpu, "gpu": sweep.resources.gpu}),
            tune_config=tune.TuneConfig(
                search_alg=dispatcher,
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=sweep.name,
                storage_path=scratch,
                callbacks=[_Rows(on_row, interrupts)],
                failure_config=tune.FailureConfig(max_failures=sweep.resources.retries),
                verbose=0,
            ),
        ).fit()
    finally:
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)


def check_resources(resources: ResourceConfig, cpus: float, gpus: float) -> list[Problem]:
    """Every resource of which one trial asks for more than there is in all: such a trial would wait for ever."""
    return [
        Problem(f"resources.{name}", f"a trial asks for {asked:g}, but there are {there:g}", f"at most {there:g}")
        for name, asked, there in (("cpu", resources.cpu, cpus), ("gpu", resources.gpu, gpus))
        if asked > there
    ]


def refuse(sweep: SweepConfig, address: str | None) -> None:
    """Raise UserError with everything that can be known to be wrong before a video is decoded."""
    problems = [] if address else check_resources(sweep.resources, cores(), torch.cuda.device_count())
    parts = [part for config in _configs(sweep) for part in config.lineage() if part.imported is None]
    # Blocks and teachers mostly share their data: each set is looked through once.
    for data in {source_id(part.data, part.clip): part.data for part in parts}.values():
        # A synthetic set that is missing will be made.
        if data.dataset != "synthetic" or Path(data.folder).exists():
            try:
                load_catalog(data)
            except DataError as error:
                problems += error.problems
    if problems:
        raise UserError(dict.fromkeys(problems))


def prepare_sweep(sweep: SweepConfig, store: Store) -> Session:
    """A session with every data set of the sweep prepared. Raises DataError for what cannot be, and UserError for
    teachers and starts that do not fit."""
    session = Session(store, workers=sweep.resources.workers)
    problems: list[Problem] = []
    for config in _configs(sweep):
        session.prepare(config)
        problems += session.problems(config)
    if problems:
        raise UserError(dict.fromkeys(problems))
    return session


def _configs(sweep: SweepConfig) -> list[TrialConfig]:
    """Trials with every teacher, data set and clip shape that the sweep can come to."""
    configs = []
    for block in sweep.blocks():
        variants: list[Mapping[str, Scalar]] = [{}, *sweep.search.controls]
        for name, parameter in sweep.space(block).items():
            if name == "teacher" or resolve(name).startswith(("data.", "clip.", "finetune.data.")):
                variants += [{name: value} for value in parameter.extremes]
        configs += [sweep.build(block, values, sweep.search.seeds[0]) for values in variants]
    return configs
