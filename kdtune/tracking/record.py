"""Map a trial's records to MLflow's metrics, params and tags: pure functions, without mlflow.

A row of epochs.jsonl becomes the metrics `train/loss`, …, `lr`, `epoch_seconds`, `validation/pretext_loss`, and
`lambda` and `tau` if they are scheduled, with the epoch as step. A stage adds `validation/knn`, `test/knn`, … (a curve
over the stages), and the same as `early/validation/knn`, …, so that the table of runs has a column for each stage. A
line of machine.jsonl becomes `system/…`, which MLflow's pages show separately.

A trial and its fine-tuning are one run: the epochs of fine-tuning follow those of pre-training, and what is not an
evaluation has the prefix `finetune/`.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdtune.config.recipe import recorded_recipe
from kdtune.config.space import column_name
from kdtune.config.trial import FINETUNE_STAGE
from kdtune.parse import JsonObject
from kdtune.store import TrialFiles
from kdtune.store.files import read_jsonl

#: The metric that shows which epochs MLflow already has, because every row has it.
MARKER = "epoch_seconds"
#: Prefix of the machine's metrics, and the metric that shows which lines MLflow has: they arrive after the rows.
MACHINE, MACHINE_MARKER = "system/", "system/cpu_utilization_percentage"
#: A trial's state → MLflow's run status. Pruning is not a failure, but MLflow's pages mark KILLED, like FAILED, with a
#: red cross; so a pruned run is FINISHED and its tag kdtune.state says pruned. So is an infeasible one.
STATUS = {
    "pending": "SCHEDULED",
    "running": "RUNNING",
    "complete": "FINISHED",
    "pruned": "FINISHED",
    "infeasible": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
ENDED = {"FINISHED", "FAILED", "KILLED"}

#: The tag with the description of a run, an experiment or a model.
NOTE = "mlflow.note.content"
#: Maximum number of characters of a param.
LONGEST = 500
#: Key of a row: the phase that its epoch belongs to, if that is not pre-training.
PHASE = "phase"


@dataclass(frozen=True)
class TrackedTrial:
    """A trial as a sweep sees it. Its figures are read from its files when they are sent."""

    files: TrialFiles
    name: str
    """Name in the table of runs, e.g. "fraction=1.0 · 3 · c3d"."""
    params: Mapping[str, object]
    """Flat: teacher, lambda, tau, alpha, fraction, student, seed, control, block; None is sent as "none"."""
    tags: Mapping[str, str]
    state: str
    """pending | running | complete | pruned | failed"""
    objective: float | None = None
    """The value that the search optimises, once it is final."""
    finetuned: TrialFiles | None = None
    """Its fine-tuning, which belongs to the same run."""
    epochs: int = 0
    """Epochs of pre-training, which those of fine-tuning follow."""

    @property
    def key(self) -> str:
        return self.files.key

    @property
    def phases(self) -> list[tuple[TrialFiles, int, str]]:
        """The trial and its fine-tuning: files, epochs before it, and the prefix of its metrics."""
        tuned = [] if self.finetuned is None else [(self.finetuned, self.epochs, f"{FINETUNE_STAGE}/")]
        return [(self.files, 0, ""), *tuned]


def rows_by_epoch(trial: TrackedTrial) -> dict[int, JsonObject]:
    """Return epoch → row. If a crash made an epoch train twice, the first row counts, which MLflow already has."""
    return _by_epoch((files.sound_rows(), after, prefix) for files, after, prefix in trial.phases)


def machine_by_epoch(trial: TrackedTrial) -> dict[int, JsonObject]:
    """Return epoch → line of machine.jsonl, the first one for each epoch."""
    return _by_epoch(
        (read_jsonl(files.machine, ("epoch",), passing_over=True), after, prefix)
        for files, after, prefix in trial.phases
    )


def _by_epoch(phases: Iterable[tuple[Sequence[Mapping[str, Any]], int, str]]) -> dict[int, JsonObject]:
    found: dict[int, JsonObject] = {}
    for rows, after, prefix in phases:
        for row in rows:
            epoch = after + row["epoch"]
            found.setdefault(epoch, {**row, "epoch": epoch, PHASE: prefix})
    return found


def machine_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """Return metric name → value for a line of machine.jsonl."""
    return {f"{MACHINE}{name}": float(value) for name, value in row.items() if name not in ("epoch", "at", PHASE)}


def row_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """Return metric name → value for an epoch's row."""
    found: dict[str, object] = {f"train/{name}": value for name, value in row.get("train", {}).items()}
    found |= {"lr": row.get("lr"), **row.get("scheduled", {})}
    found |= {f"validation/{name}": value for name, value in row.get("validation", {}).items()}
    found = {f"{row.get(PHASE, '')}{name}": value for name, value in found.items()}
    found[MARKER] = row.get("seconds", math.nan)
    for split, accuracies in row.get("evaluation", {}).items():
        for name, value in accuracies.items():
            found[f"{split}/{name}"] = value
            if "stage" in row:
                found[f"{row['stage']}/{split}/{name}"] = value
    return {metric_name(name): float(value) for name, value in found.items() if isinstance(value, int | float)}


def metric_name(name: str) -> str:
    """Replace characters that MLflow refuses by underscores (a stage's name may hold any)."""
    return re.sub(r"[^/\w.\- ]", "_", name)


def param_values(trial: TrackedTrial) -> dict[str, str]:
    """Return the params as MLflow stores them: as text."""
    return {name: "none" if value is None else str(value) for name, value in trial.params.items()}


def recipe_values(trial: TrackedTrial) -> dict[str, str]:
    """Return what else is not at its default as params: epochs, batch, rate, sizes and more, by their names in a file.

    Params of `finetune.` are those in which the fine-tuning differs from the trial.
    """
    found, start = dict[str, str](), None
    for files, _, _ in trial.phases:
        form = (files.identity() or {}).get("trial")
        if isinstance(form, dict):
            prefix = "" if start is None else f"{FINETUNE_STAGE}."
            found |= {f"{prefix}{path}": text for path, text in recorded_recipe(form, start).items()}
            start = form
    known = {"seed", *trial.params}
    shown = {path: text[:LONGEST] for path, text in found.items() if text and column_name(path) not in known}
    return {metric_name(path): text for path, text in shown.items()}


def outcome_tags(trial: TrackedTrial, rows: Mapping[int, Mapping[str, Any]]) -> dict[str, str]:
    """Return the tags for state, epochs, error, weights' digest and profile, as far as they are known."""
    result = trial.files.sound_result() or {}
    failures = [files.failure() for files, _, _ in trial.phases]
    tags = {"kdtune.key": trial.key, "kdtune.state": trial.state}
    tags["kdtune.error"] = next(filter(None, failures), "")
    if trial.finetuned is not None:
        tags["kdtune.finetuned"] = trial.finetuned.key
    tags["kdtune.epochs"] = str(len(rows))
    if "weights_sha256" in result:
        tags["kdtune.weights_sha256"] = result["weights_sha256"]
    if "profile" in result:
        tags["kdtune.profile"] = json.dumps(result["profile"], ensure_ascii=False)
    return {**trial.tags, **tags}


def started_ms(rows: Mapping[int, Mapping[str, Any]]) -> int:
    """Return when the trial's first epoch began, in Unix milliseconds; the present time if there is none yet."""
    if not rows:
        return int(time.time() * 1000)
    first = rows[min(rows)]
    return int((first["at"] - first.get("seconds", 0.0)) * 1000)


def latest_ms(rows: Mapping[int, Mapping[str, Any]]) -> int:
    """Return when the trial's last epoch ended, in Unix milliseconds; the present time if there is none yet."""
    return int((rows[max(rows)]["at"] if rows else time.time()) * 1000)
