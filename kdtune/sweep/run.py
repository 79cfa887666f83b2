"""Train what a campaign has to train, through Ray Tune. Imported where there is something: Ray takes seconds."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from kdtune.errors import ResourceError
from kdtune.sweep.campaign import Campaign
from kdtune.sweep.interrupts import Interrupts
from kdtune.sweep.job import Job, Outcome, outcome_in_store
from kdtune.sweep.prepare import check_resources
from kdtune.sweep.worker import TrialWorker
from kdtune.train.prepared import Prepared

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

    def __init__(self, campaign: Campaign, first: Job, prepared: Prepared) -> None:
        super().__init__()
        self.campaign, self.prepared = campaign, prepared
        self._running: dict[str, Job] = {}
        self._next: Job | None = first

    def suggest(self, trial_id: str) -> Any:
        job, self._next = self._next or self.campaign.next_to_train(self.prepared.store), None
        if job is None:
            return Searcher.FINISHED if self.campaign.done else None
        self._running[trial_id] = job
        sweep = self.campaign.sweep
        return {
            "job": job,
            "objective": sweep.objective,
            "prepared": self.prepared,
            "workers": sweep.resources.workers,
            "device": "cuda" if sweep.resources.gpu > 0 else "cpu",
        }

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        job = self._running.pop(trial_id)
        outcome = outcome_in_store(job, self.campaign.sweep.objective, self.prepared.store)
        if outcome is None:
            recorded = (self.prepared.store.trial(key).failure() for key in job.keys)
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
    campaign: Campaign, first: Job, prepared: Prepared, address: str | None, on_row: OnRow, interrupts: Interrupts
) -> None:
    """Bring `first` and every other job of `campaign` to its end.

    Raises ResourceError, before Ray starts a trial, where a trial can never fit.
    """
    sweep = campaign.sweep
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
                search_alg=Dispatcher(campaign, first, prepared),
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
