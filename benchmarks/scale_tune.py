"""Ray Tune with OptunaSearch on trials that only report: the other side of benchmarks/scale.py.

    python benchmarks/scale_tune.py JOB.json        # scale.py writes the job: how many trials, the sampler, places

As Ray's documentation has it: a class whose actor is reused, ASHA, Tune's own result files, and, where the job names a
tracking URI, the MLflow callback. A trial reports two figures an epoch, a kdtune trial some hundred at each stage.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ray
from optuna.samplers import RandomSampler, TPESampler
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from scale_shared import EPOCHS, SPACE, STARTUP, Meter, accuracy


class Reporting(tune.Trainable):
    """A trial that only reports."""

    def setup(self, config: dict[str, Any]) -> None:
        self.values = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.values = new_config
        return True

    def step(self) -> dict[str, Any]:
        epoch = self.iteration + 1
        reached = accuracy(self.values, epoch)
        return {"loss": 2 - reached, "knn": reached, "done": epoch == EPOCHS}


class Ends(tune.Callback):
    """Records every trial's end."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.meter.note_end()


def main() -> None:
    meter = Meter()
    job = json.loads(Path(sys.argv[1]).read_text())
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    callbacks: list[tune.Callback] = [Ends(meter)]
    if job["tracking_uri"] is not None:
        callbacks.append(MLflowLoggerCallback(tracking_uri=job["tracking_uri"], experiment_name="scale"))
    sampler = TPESampler(n_startup_trials=STARTUP, seed=0) if job["sampler"] == "tpe" else RandomSampler(seed=0)
    space = {name: (tune.loguniform if log else tune.uniform)(low, high) for name, (low, high, log) in SPACE.items()}
    results = tune.Tuner(
        tune.with_resources(Reporting, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="knn",
            mode="max",
            num_samples=job["trials"],
            search_alg=OptunaSearch(sampler=sampler),
            scheduler=ASHAScheduler(max_t=EPOCHS, grace_period=1, reduction_factor=2),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="scale",
            storage_path=job["storage"],
            callbacks=callbacks,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    ).fit()
    ray.shutdown()
    if results.errors or len(meter.ends) != job["trials"]:
        sys.exit(f"{len(meter.ends)} of {job['trials']} trials ended, {len(results.errors)} with an error")
    Path(job["out"]).write_text(json.dumps(meter.figures()))


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(None if print(__doc__) or sys.argv[1:] in (["-h"], ["--help"]) else 2)
    main()
