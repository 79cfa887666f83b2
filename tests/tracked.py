"""Trials as workers leave them in a store, sent to MLflow; and what MLflow then holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kdtune.store import StoreFiles
from kdtune.store.files import append_jsonl, write_json
from kdtune.tracking.location import prepare_environment
from kdtune.tracking.publish import Publisher, TrackedTrial
from kdtune.tracking.sweep_text import SweepResult, SweepText

EXPERIMENT, SWEEP = "experiment", "lambda_tau"
STAGES = {2: "early", 4: "late"}
BEGAN_AT = 1763683200.25


def write_epoch(trial: TrackedTrial, epoch: int) -> None:
    """Append a row as the trainer would, with figures that identify trial and epoch."""
    accuracy = 0.1 * epoch + 0.01 * len(trial.name)
    row: dict = {
        "epoch": epoch,
        "train": {"loss": 3.0 / epoch, "pretext": 1.6, "contrast": 0.9, "distill": 0.0, "pretext_accuracy": accuracy},
        "lr": 0.01,
        "seconds": 2.0,
        "at": BEGAN_AT + 2.0 * epoch,
    }
    if epoch in STAGES:
        row["stage"] = STAGES[epoch]
        row["evaluation"] = {
            split: {"pretext": 0.3, "knn": accuracy, "linear": 0.5} for split in ("validation", "test")
        }
    append_jsonl(trial.files.epochs, row)


def make_trial(store: StoreFiles, number: int, state: str, epochs: int) -> TrackedTrial:
    """Make a trial of candidate `number` with these many epochs on disk, as a worker would leave it."""
    files = store.trial(f"{number:064x}")
    params = {"teacher": "c3d", "lambda": 0.5 * number, "tau": None, "fraction": 1.0, "key": files.key}
    trial = TrackedTrial(files, f"{number} · c3d", params, {"kdtune.candidate": str(number)}, state)
    write_json(files.config, {"seed": number})
    for epoch in range(1, epochs + 1):
        write_epoch(trial, epoch)
    if state == "complete":
        ended = {"epochs": epochs, "stages": files.stages(), "weights_sha256": f"{number:064x}"}
        files.write_result({**ended, "seconds": 8.0, "profile": {"device": "cpu"}})
        trial = replace(trial, objective=0.4)
    if state == "failed":
        files.write_failure("the loss is not finite at epoch 2")
    return trial


def make_trials(store: StoreFiles) -> list[TrackedTrial]:
    return [
        make_trial(store, 1, "complete", 4),
        make_trial(store, 2, "pruned", 2),
        make_trial(store, 3, "failed", 1),
        make_trial(store, 4, "running", 1),
        make_trial(store, 5, "pending", 0),
    ]


def publish(uri: str, folder: Path, trials: list[TrackedTrial], state: str = "complete") -> list[str]:
    publisher = Publisher(
        uri, EXPERIMENT, SweepText(SWEEP, "Which one is best?", "name: lambda_tau\n"), folder / "mlflow.jsonl"
    )
    for trial in trials:
        publisher.update(trial)
    return publisher.close(
        state,
        SweepResult("The third.", "better (95 % CI, corrected for 16 comparisons)", {"best/knn": 0.4}),
        timeout_s=120,
    )


class Shown:
    """What MLflow has, read by a separate client."""

    def __init__(self, uri: str) -> None:
        prepare_environment()
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=uri)
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        found = [] if experiment is None else self.client.search_runs([experiment.experiment_id])
        self.parents = [run for run in found if "kdtune.sweep" in run.data.tags]
        self.trials = {run.info.run_name: run for run in found if "kdtune.key" in run.data.tags}
        assert len(found) == len(self.parents) + len(self.trials)

    def history(self, name: str, metric: str) -> list[tuple[int, float, int]]:
        """Return step, value and milliseconds of everything logged under this name."""
        logged = self.client.get_metric_history(self.trials[name].info.run_id, metric)
        return [(entry.step, entry.value, entry.timestamp) for entry in logged]

    def everything(self) -> dict:
        """Return all that a second sending must not change: metric histories, params, tags, statuses and ends."""
        return {
            name: (
                {metric: self.history(name, metric) for metric in sorted(run.data.metrics)},
                run.data.params,
                {tag: value for tag, value in run.data.tags.items() if tag != "mlflow.parentRunId"},
                run.info.status,
                run.info.start_time,
            )
            for name, run in self.trials.items()
        }
