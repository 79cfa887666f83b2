"""A kdtune sweep whose trials only report: one side of benchmarks/scale.py.

    python benchmarks/scale_kdtune.py JOB.json        # scale.py writes the job: the sweep file, the store, how many

The driver is the real one: scheduler, ledger, Optuna's study and journal, Ray Tune, the publisher to MLflow. A worker
writes to the TrialStore what a trial of three epochs leaves and yields its rows, but trains nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch

import kdtune.execute.group_queue
import kdtune.execute.tune_run
import kdtune.sweep.scheduler
from kdtune.config.key import identity
from kdtune.config.load import load_sweep
from kdtune.config.metrics import METRICS, RETRIEVED
from kdtune.config.trial import TrialConfig
from kdtune.execute.driver import drive
from kdtune.execute.ray_tune import RayTune
from kdtune.execute.worker import TrialWorker
from kdtune.history.events import Ended, Event
from kdtune.history.record import SweepRecord
from kdtune.store import StoreFiles
from kdtune.store.files import append_jsonl, write_json
from kdtune.sweep.groups import GroupFactory
from kdtune.sweep.ledger import Ledger
from kdtune.sweep.search import Search
from kdtune.sweep.study import Journal
from kdtune.tracking.location import prepare_environment
from kdtune.train.measuring.evaluate import with_best
from kdtune.train.profile import profile
from kdtune.train.session import Session
from scale_shared import EPOCHS, Meter, accuracy


class Reporting(Session):
    """A session whose trials write their files and train nothing."""

    def trial(self, config: TrialConfig, device: torch.device) -> Generator[dict[str, Any], None, None]:
        files = self.files(config)
        values = {
            "alpha": config.loss.alpha,
            "optimizer.lr": config.optimizer.lr,
            "optimizer.weight_decay": config.optimizer.weight_decay,
        }
        with self.store.lock(f"trial-{files.key}"):
            write_json(files.config, identity(config, self.manifest_of(config)))
            rows: list[dict[str, Any]] = []
            for epoch in range(1, EPOCHS + 1):
                began = time.perf_counter()
                row = report(config, epoch, accuracy(values, epoch), rows)
                row |= {"seconds": time.perf_counter() - began, "at": time.time()}
                append_jsonl(files.epochs, row)
                rows.append(row)
                yield row
            files.write_result(
                {
                    "epochs": EPOCHS,
                    "stages": {row["stage"]: row["evaluation"] for row in rows if "stage" in row},
                    "weights_sha256": "0" * 64,
                    "kept_epoch": EPOCHS,
                    "seconds": sum(row["seconds"] for row in rows),
                    "profile": profile(config, device, self.clips(config)),
                    "earlier_profiles": [],
                }
            )


def report(config: TrialConfig, epoch: int, reached: float, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return an epoch's row with every figure that train/trial.py records there."""
    head = {"pretext": reached, "pretext_loss": 1 - reached, "pretext_majority": 0.2}
    row: dict[str, Any] = {"epoch": epoch, "lr": config.optimizer.lr, "samples_sha256": "0" * 64, "validation": head}
    row["train"] = {"loss": 2 - reached, "pretext": 1 - reached, "contrast": 1.0, "pretext_accuracy": reached}
    stage = next((name for name, at in config.stage_epochs.items() if at == epoch), None)
    if stage is not None:
        features = dict.fromkeys(("knn", "linear", *(f"retrieval_{k}" for k in RETRIEVED)), reached)
        assert features.keys() <= set(METRICS)
        scores = {split: {**head, **features, "action_majority": 0.1} for split in ("validation", "test")}
        row |= {"stage": stage, "evaluation": with_best(scores, rows)}
        row |= {"weights_sha256": "0" * 64, "optimizer_sha256": "0" * 64}
    return row


class ReportingWorker(TrialWorker):
    """The worker of every sweep, with that session."""

    def setup(self, config: dict[str, Any]) -> None:
        super().setup(config)
        self.session = Reporting(self.session.store, self.session.folders, stopping=self.stopping)
        self._begin(config)


class Silent:
    """Records when trials end."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def say(self, text: str) -> None:
        pass

    def begin(self, record: SweepRecord) -> None:
        pass

    def apply(self, event: Event) -> None:
        if isinstance(event, Ended):
            self.meter.note_end()


def measured_parts(meter: Meter) -> None:
    """Parts of the driver's time; MLflow's parts run in the publisher's own thread."""
    prepare_environment()
    from kdtune.tracking.publish import Publisher
    from kdtune.tracking.view import View

    meter.measure("asking Optuna", Search, "ask")
    meter.measure("telling Optuna", Search, "tell")
    meter.measure("a candidate's trial and key", GroupFactory, "candidate")
    meter.measure("ledger", Ledger, "add")
    meter.measure("Optuna's journal", Journal, "add")
    meter.measure("reading the outcome", kdtune.execute.group_queue, "outcome_in_store")
    meter.measure("looking it up before", kdtune.sweep.scheduler, "outcome_in_store")
    meter.measure("MLflow: a trial", View, "send")
    meter.measure("MLflow: mlflow.jsonl", Publisher, "_write_run_ids")


def main() -> None:
    meter = Meter()
    job = json.loads(Path(sys.argv[1]).read_text())
    measured_parts(meter)
    kdtune.execute.tune_run.TrialWorker = ReportingWorker
    file = Path(job["file"])
    sweep = load_sweep(file, job["set"])
    ending = drive(sweep, file.read_text(), StoreFiles(job["store"]), RayTune(), job["tracking_uri"], Silent(meter))
    if ending.exit_code != 0 or ending.notes or ending.trained != job["trials"]:
        sys.exit(f"{ending.trained} of {job['trials']} trials trained: {ending}")
    Path(job["out"]).write_text(json.dumps(meter.figures()))


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(None if print(__doc__) or sys.argv[1:] in (["-h"], ["--help"]) else 2)
    main()
