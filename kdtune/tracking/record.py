"""What a trial's records in the TrialStore are called in MLflow: pure functions, without mlflow.

A row of epochs.jsonl becomes the metrics `train/loss`, …, `lr`, `epoch_seconds`, `lambda` and `tau` (where a schedule
changes them) and `validation/pretext_loss`, with the
epoch as step; a stage adds `validation/knn`, `test/knn`, … (a curve over the stages) and the same once more as
`early/validation/knn`, … so that the table of runs has a column for each stage. A line of machine.jsonl becomes
`system/…`, which MLflow's pages show apart.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdtune.store import TrialFiles
from kdtune.store.files import read_jsonl

#: In every row, hence the metric that tells which epochs MLflow already has.
MARKER = "epoch_seconds"
#: The same of the lines on the machine, which come a little later.
MACHINE, MACHINE_MARKER = "system/", "system/cpu_utilization_percentage"
#: kdtune's word for a trial's state → MLflow's run status. Pruning is an outcome and no failure, and MLflow's pages
#: show KILLED as they show FAILED, by a red cross; so a pruned run is FINISHED and its tag kdtune.state says pruned.
STATUS = {
    "pending": "SCHEDULED",
    "running": "RUNNING",
    "complete": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
ENDED = {"FINISHED", "FAILED", "KILLED"}


@dataclass(frozen=True)
class TrackedTrial:
    """One trial as a sweep sees it; all figures are read from its files when they are sent."""

    files: TrialFiles
    name: str
    """What the table of runs shows, e.g. "fraction=1.0 · 3 · c3d"."""
    params: Mapping[str, object]
    """Flat: teacher, lambda, tau, alpha, fraction, student, seed, control, block; None is sent as "none"."""
    tags: Mapping[str, str]
    state: str
    """pending | running | complete | pruned | failed"""
    objective: float | None = None
    """The number that the search optimises, once it stands."""

    @property
    def key(self) -> str:
        return self.files.key


def rows_by_epoch(files: TrialFiles) -> dict[int, dict[str, Any]]:
    """Epoch → its row. An epoch that was trained twice around a crash counts once: the first row, as MLflow has it."""
    return _by_epoch(files.sound_rows())


def machine_by_epoch(files: TrialFiles) -> dict[int, dict[str, Any]]:
    """Epoch → the line on the machine, likewise."""
    return _by_epoch(read_jsonl(files.machine, ("epoch",), passing_over=True))


def _by_epoch(rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(row["epoch"], row)
    return found


def machine_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """Metric names and values of one line on the machine."""
    return {f"{MACHINE}{name}": float(value) for name, value in row.items() if name not in ("epoch", "at")}


def row_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """Metric names and values of one epoch."""
    found: dict[str, Any] = {f"train/{name}": value for name, value in row.get("train", {}).items()}
    found |= {"lr": row.get("lr"), MARKER: row.get("seconds", math.nan)}
    found |= row.get("scheduled", {})
    found |= {f"validation/{name}": value for name, value in row.get("validation", {}).items()}
    for split, accuracies in row.get("evaluation", {}).items():
        for name, value in accuracies.items():
            found[f"{split}/{name}"] = value
            if "stage" in row:
                found[f"{row['stage']}/{split}/{name}"] = value
    return {metric_name(name): float(value) for name, value in found.items() if isinstance(value, int | float)}


def metric_name(name: str) -> str:
    """The name with every character that MLflow refuses (a stage may be called anything) as an underscore."""
    return re.sub(r"[^/\w.\- ]", "_", name)


def param_values(trial: TrackedTrial) -> dict[str, str]:
    """Params as MLflow keeps them: text."""
    return {name: "none" if value is None else str(value) for name, value in trial.params.items()}


def outcome_tags(trial: TrackedTrial, rows: Mapping[int, Mapping[str, Any]]) -> dict[str, str]:
    """State, epochs, error in plain words, hash of the weights and profile, as far as the trial has come."""
    result = trial.files.sound_result() or {}
    tags = {"kdtune.key": trial.key, "kdtune.state": trial.state, "kdtune.error": trial.files.failure() or ""}
    tags["kdtune.epochs"] = str(len(rows))
    if "weights_sha256" in result:
        tags["kdtune.weights_sha256"] = result["weights_sha256"]
    if "profile" in result:
        tags["kdtune.profile"] = json.dumps(result["profile"], ensure_ascii=False)
    return {**trial.tags, **tags}


def started_ms(rows: Mapping[int, Mapping[str, Any]]) -> int:
    """When the trial's first epoch began, in milliseconds of Unix time; now where there is none yet."""
    if not rows:
        return int(time.time() * 1000)
    first = rows[min(rows)]
    return int((first["at"] - first.get("seconds", 0.0)) * 1000)


def latest_ms(rows: Mapping[int, Mapping[str, Any]]) -> int:
    """When the trial's last epoch ended, in milliseconds of Unix time; now where there is none yet."""
    return int((rows[max(rows)]["at"] if rows else time.time()) * 1000)
