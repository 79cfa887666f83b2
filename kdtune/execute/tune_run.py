"""Run a queue of groups through Ray Tune."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

from ray import tune
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError, RayTaskError
from ray.tune.search import Searcher

from kdtune.errors import Problem, ResourceError
from kdtune.execute.backend import Stuck
from kdtune.execute.cluster.connect import ClusterWatch, connected
from kdtune.execute.cluster.devices import DeviceWatch, Request, choose_devices
from kdtune.execute.cluster.local import HERE, RESUME
from kdtune.execute.cluster.nodes import Needs, alive_nodes, check_nodes
from kdtune.execute.cluster.ray_private import error_of
from kdtune.execute.group_queue import GroupQueue, MachineLost, MachineUnfit, OutOfMemory, ProcessDied
from kdtune.execute.worker import TrialWorker
from kdtune.scoped import environment, kept_environment, log_level
from kdtune.sweep.group import TrialGroup
from kdtune.sweep.prepare import check_resources
from kdtune.sweep.stopping import LOOK_S, Cancel, Stopping

#: Turn off logs, snapshots and signal handling of Ray Tune, which kdtune, its store and MLflow already do.
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
#: A variable that Ray Tune itself sets.
_SET_BY_TUNE = "TUNE_RESULT_BUFFER_LENGTH"


class ClusterGone(BaseException):
    """Ray no longer answers. Not an Exception, because Ray Tune would treat one as its own error."""


class TuneSearcher(Searcher):
    """Ray Tune's search algorithm. `suggest` returns the next trial's configuration, or None if there is none now."""

    def __init__(self, queue: GroupQueue, needs: Needs | None = None) -> None:
        super().__init__()
        self.queue = queue
        self.needs = needs
        """Requirements that every node of a cluster must meet."""
        self._groups: dict[str, TrialGroup] = {}
        """Tune's id of a trial → its group."""

    def suggest(self, trial_id: str) -> Any:
        group = self.queue.next()
        if group is None:
            return Searcher.FINISHED if self.queue.over else None
        self._groups[trial_id] = group
        sweep = self.queue.sweep
        return {
            "group": group,
            "objectives": sweep.objectives,
            "prepared": self.queue.prepared,
            "workers": sweep.resources.workers,
            "device": self.queue.device,
            "sweep": sweep.name,
            "needs": self.needs,
        }

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        if not error:  # Ray Tune's callback reports the error right after this
            self.ended(trial_id, None)

    def ended(self, trial_id: str, error: BaseException | None) -> None:
        """Report to the queue that a group's actor has ended, with or without `error`."""
        self.queue.ended(self._groups.pop(trial_id), error)

    @property
    def blocks(self) -> list[str | None]:
        """The blocks of the groups that run or wait for a machine."""
        return [group.asked.block for group in self._groups.values()]

    # Ray pickles a search algorithm and its callbacks to restore them later. Our snapshot is the ledger.
    def __getstate__(self) -> dict[str, object]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass


class TuneCallback(tune.Callback):
    """Forwards Ray Tune's events to the queue, and checks for reasons to stop."""

    def __init__(self, searcher: TuneSearcher, cluster: ClusterWatch, devices: DeviceWatch | None) -> None:
        self.searcher, self.queue, self.cluster, self.devices = searcher, searcher.queue, cluster, devices
        self._nodes: dict[str, set[str]] = {}
        """Tune's id of a trial → ids of the nodes that may run it."""

    def __getstate__(self) -> dict[str, object]:
        return {}

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        self.queue.stopping.look()
        if self.cluster.gone:
            raise ClusterGone
        if self.devices is not None:
            self.devices.look(self.searcher.blocks)

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._nodes[trial.trial_id] = {node["NodeID"] for node in alive_nodes()}
        self.queue.started(trial.config["group"])

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        if "node" in result:
            self._nodes[trial.trial_id] = {result["node"]}
        if "row" in result:
            self.queue.row(trial.config["group"], json.loads(result["row"]))

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._nodes.pop(trial.trial_id, None)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        nodes = self._nodes.pop(trial.trial_id, set())
        self.searcher.ended(trial.trial_id, _in_our_words(error_of(trial), nodes))


def _in_our_words(error: BaseException, nodes: set[str]) -> BaseException:
    """Convert the error of a trial on one of `nodes` to the exception that the queue expects."""
    if isinstance(error, ActorUnavailableError):
        return MachineLost()  # unreachable, though no node has reported its process dead
    if isinstance(error, OutOfMemoryError):
        return OutOfMemory()
    if isinstance(error, RayActorError):
        return MachineLost() if nodes - {node["NodeID"] for node in alive_nodes()} else ProcessDied()
    cause = error.cause if isinstance(error, RayTaskError) else error
    return MachineUnfit(cause.problems) if isinstance(cause, ResourceError) else cause


def run_in_tune(
    queue: GroupQueue, address: str | None, cancel: Cancel, say: Callable[[str], object], stuck: Stuck
) -> None:
    """Train the queue's groups on the Ray at `address`, or on a Ray started on this machine (see `Backend.run`)."""
    resources = queue.sweep.resources
    what = f"Ray no longer answers; the trials' checkpoints are in the store: {RESUME}"
    gone = ResourceError([Problem(address or HERE, what)])
    with ExitStack() as stack:
        stack.enter_context(environment(_TUNE_SETTINGS))
        stack.enter_context(kept_environment(_SET_BY_TUNE))
        needs = None if address is None else stack.enter_context(Needs.of(queue.prepared).locked())
        scratch = stack.enter_context(connected(address, cancel, say))
        stack.enter_context(log_level("ray.tune", logging.CRITICAL))  # the sweep reports failed trials itself
        cluster = stack.enter_context(closing(ClusterWatch(lambda: stuck(gone))))
        searcher = TuneSearcher(queue, needs)
        nodes = alive_nodes()
        problems = check_resources(resources, [node["Resources"] for node in nodes])
        lacking, processors = check_nodes(needs) if needs is not None else ([], [])
        if problems := problems + lacking:
            raise ResourceError(problems)
        devices = None
        if address is not None:
            blocks = [block.label for block in queue.sweep.blocks()]
            devices = choose_devices(queue.stopping.files, blocks, resources, nodes, processors, say)
        tuner = tune.Tuner(
            tune.with_resources(TrialWorker, Request(resources, devices)),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=queue.sweep.name,
                storage_path=str(scratch / "tune"),
                callbacks=[TuneCallback(searcher, cluster, None if devices is None else DeviceWatch(devices, say))],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )

        try:
            with cancel.patient():
                _in_a_thread(tuner.fit, queue.stopping)
        except ClusterGone:
            raise gone from None


def _in_a_thread(work: Callable[[], object], stopping: Stopping) -> None:
    """Run `work` in a thread and raise what it raises. The first KeyboardInterrupt asks it to stop, the next one to
    stop at once.

    Ray Tune loses track of its trials when an interrupt hits it, and sets its own signal handlers in the main thread.
    """
    raised: list[BaseException] = []
    finished = threading.Event()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)
        finally:
            finished.set()

    threading.Thread(target=run, name="kdtune-tune", daemon=True).start()
    while not finished.is_set():
        try:
            finished.wait(LOOK_S)  # a signal that another thread receives does not end a wait without a limit
        except KeyboardInterrupt:
            if stopping.impatient:
                raise
            stopping.impatient = stopping.cancel.asked
            stopping.cancel.asked = stopping.cancel.interrupted = True
    if raised:
        raise raised[0]
