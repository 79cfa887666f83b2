"""Train what a scheduler has to train, through Ray Tune. Imported where there is something: Ray takes seconds."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import ray
from ray import cloudpickle, tune

from kdtune.clips.machine import GIB
from kdtune.config.search import ResourceConfig
from kdtune.errors import Problem, ResourceError, UserError
from kdtune.execute.connect import HERE, ClusterWatch, connected
from kdtune.execute.nodes import Needs, check_nodes
from kdtune.execute.searcher import TuneSearcher
from kdtune.execute.worker import TrialWorker
from kdtune.sweep.group import TrialGroup
from kdtune.sweep.interrupts import Interrupts
from kdtune.sweep.prepare import check_resources
from kdtune.sweep.scheduler import SweepScheduler
from kdtune.sweep.stopping import Stopping
from kdtune.train.prepared import Prepared

#: Is told of every row that a worker reports: the group, the trial's key, the row, whether the worker trains the trial.
OnRow = Callable[[TrialGroup, str, dict[str, Any], bool], object]

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


class ClusterGone(BaseException):
    """Ray does not answer any more. No Exception: Ray Tune would take it for one of its own troubles."""


class _Events(tune.Callback):
    """Passes on what Ray Tune tells: rows to `on_row`, errors to the dispatcher; looks for reasons to stop."""

    def __init__(self, on_row: OnRow, searcher: TuneSearcher, cluster: ClusterWatch) -> None:
        self.on_row, self.searcher, self.cluster = on_row, searcher, cluster

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        self.searcher.stopping.look()
        if self.cluster.gone:
            raise ClusterGone

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.searcher.scheduler.on_record({"event": "started", "group": trial.config["group"].name})

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        if "row" in result:
            found = json.loads(result["row"])
            self.searcher.trained |= {found["key"]} if found["trained"] else set()
            self.on_row(trial.config["group"], found["key"], found["row"], found["trained"])

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.searcher.ended(trial.trial_id, _error(trial))


def run_trials(
    scheduler: SweepScheduler,
    first: TrialGroup,
    prepared: Prepared,
    address: str | None,
    on_row: OnRow,
    stopping: Stopping,
    interrupts: Interrupts,
    say: Callable[[str], object],
    last_resort: Callable[[UserError], object],
) -> None:
    """Bring `first` and every other group of `campaign` to its end, or until there is a reason to stop.

    `say` is told of a Ray that is slow to start. Raises ResourceError where Ray does not start; before it starts a
    trial, where a trial can never fit or a node cannot train; and where the cluster goes away. Where Ray does not even
    let this function return then, `last_resort` is called with that error, in another thread, and has to end the
    process.
    """
    sweep = scheduler.sweep
    os.environ.update(_TUNE_SETTINGS)
    what = "Ray does not answer any more; the trials' checkpoints are in the store, and the same command goes on"
    gone = ResourceError([Problem(address or HERE, what)])
    with ExitStack() as stack:
        needs = None if address is None else stack.enter_context(Needs.of(prepared).locked())
        scratch = stack.enter_context(connected(address, interrupts, say))
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # of failed trials the sweep itself tells
        cluster = stack.enter_context(closing(ClusterWatch(lambda: last_resort(gone))))
        searcher = TuneSearcher(scheduler, first, prepared, stopping, needs)
        problems = check_resources(sweep.resources, [node["Resources"] for node in ray.nodes() if node["Alive"]])
        problems += check_nodes(needs) if needs is not None else []
        if problems:
            raise ResourceError(problems)
        tuner = tune.Tuner(
            tune.with_resources(TrialWorker, _resources(sweep.resources)),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=sweep.name,
                storage_path=str(scratch / "tune"),
                callbacks=[_Events(on_row, searcher, cluster)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        try:
            with interrupts.patient():
                tuner.fit()
        except ClusterGone:
            raise gone from None


def _error(trial: Any) -> BaseException:
    """Why a trial failed. Read here, for `get_pickled_error` looks where the file is only when the sweep has ended."""
    if trial.pickled_error_file is None:
        return RuntimeError("an error that Ray does not keep")
    with open(trial.pickled_error_file, "rb") as file:
        return cloudpickle.load(file)


def _resources(resources: ResourceConfig) -> dict[str, float]:
    """Of a trial, in Ray's words."""
    memory = {} if resources.memory is None else {"memory": resources.memory * GIB}
    return {"cpu": resources.cpu, "gpu": resources.gpu, **memory}
