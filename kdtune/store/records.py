"""The files of a trial and of a sweep in the store. Imports no torch; any program that reads JSON can read them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from kdtune.errors import StoreError
from kdtune.parse import JsonObject
from kdtune.store.contents import EpochRecord, Scores, TrialResult
from kdtune.store.files import read_json, read_jsonl, write_json
from kdtune.store.mirror import Mirror
from kdtune.store.seal import passed_over
from kdtune.urls import redact

#: Keys of every sweep's record.
SWEEP_RECORD = ("name", "ledger", "blocks", "objectives", "stages")
#: Keys of every trial's result.
RESULT = ("epochs", "stages", "weights_sha256", "seconds", "profile")
#: Keys of every row of a ledger.
LEDGER_ROW = ("event", "group")


@dataclass(frozen=True)
class TrialFiles:
    """The files in `trials/<key>/`."""

    folder: Path
    mirror: Mirror | None = field(default=None, repr=False, compare=False)

    def fetch(self, *checkpoints: Path) -> TrialFiles:
        """Behind a URL, download the records and these checkpoints if other machines wrote them since; return self."""
        if self.mirror is not None:
            self.mirror.fetch(f"trials/{self.key}", tuple(path.name for path in checkpoints))
        return self

    def has(self, path: Path) -> bool:
        """Return whether this file of the trial exists, here or behind the URL."""
        there = {} if self.mirror is None else self.mirror.remote.listing(f"trials/{self.key}")
        return path.exists() or path.name in there

    def publish(self) -> None:
        """Behind a URL, upload what this machine has written. In a folder every machine sees it already."""
        if self.mirror is not None:
            self.mirror.publish(f"trials/{self.key}")

    @property
    def unpublished(self) -> bool:
        """Whether this machine has written something that the store behind a URL lacks."""
        return self.mirror is not None and self.mirror.unpublished(f"trials/{self.key}")

    @property
    def key(self) -> str:
        return self.folder.name

    @property
    def config(self) -> Path:
        return self.folder / "config.json"

    @property
    def data(self) -> Path:
        """Where the trial's videos were when it was trained, and how many it saw. Nothing depends on it."""
        return self.folder / "data.json"

    @property
    def machine(self) -> Path:
        """How busy the machine was, a line per epoch; kept apart from the rows, which are the same on every machine."""
        return self.folder / "machine.jsonl"

    @property
    def epochs(self) -> Path:
        return self.folder / "epochs.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def checkpoint_before(self) -> Path:
        """The previous checkpoint, in case the last one is damaged; removed when the trial is complete."""
        return self.folder / "checkpoint_before.pt"

    def stage_checkpoint(self, stage: str) -> Path:
        """The checkpoint of a stage before the last epoch, for `replay --from`."""
        return self.folder / f"stage_{stage}.pt"

    def classes(self, stage: str) -> Path:
        """The per-class figures of an action head by split: names, confusion matrix, precision, recall and F1."""
        return self.folder / f"classes_{stage}.json"

    def rows(self) -> list[EpochRecord]:
        """Return one row per epoch: losses, rate, seconds, and at a stage its name and accuracies.

        Raises DamageError if lines are damaged.
        """
        return cast(list[EpochRecord], read_jsonl(self.epochs, ("epoch",)))

    def sound_rows(self) -> list[EpochRecord]:
        """Return the undamaged rows, for readers that train nothing. A note names the damaged lines."""
        return cast(list[EpochRecord], read_jsonl(self.epochs, ("epoch",), passing_over=True))

    def stages(self) -> dict[str, Scores]:
        """Return stage → its accuracies, for the stages reached so far."""
        return {row["stage"]: row["evaluation"] for row in self.sound_rows() if "stage" in row}

    @property
    def result_file(self) -> Path:
        return self.folder / "result.json"

    def result(self) -> TrialResult | None:
        """Return the result of a complete trial, or None. Raises DamageError if the file is damaged."""
        return cast(TrialResult | None, read_json(self.result_file, RESULT))

    def sound_result(self) -> TrialResult | None:
        """Return the result, or None if it is missing or damaged, for readers that train nothing."""
        return passed_over(self.result, None)

    def identity(self) -> JsonObject | None:
        """Return the trial's identity (config.key.identity), or None if its record is missing or damaged."""
        return passed_over(lambda: read_json(self.config), None)

    def write_result(self, result: TrialResult) -> None:
        """Write the result and publish the trial."""
        write_json(self.result_file, result)
        self.publish()

    def withdraw_result(self) -> None:
        """Make a complete trial incomplete, because its files do not match its result. Call it under the trial's
        lock."""
        self.result_file.unlink(missing_ok=True)
        if self.mirror is not None:
            self.mirror.withdraw(f"trials/{self.key}", self.result_file.name)

    def fetch_again(self, *paths: Path) -> TrialFiles:
        """Behind a URL, download these files again, because the copies here are damaged; return self."""
        if self.mirror is not None:
            for path in paths:
                path.unlink(missing_ok=True)
            self.fetch(*(path for path in paths if path.suffix == ".pt"))
        return self

    def failure(self) -> str | None:
        """Return why the last attempt failed, or None."""
        return (self._failure() or {}).get("error")

    def ran_out_of_memory(self) -> bool:
        """Return whether the last attempt ran out of memory."""
        return (self._failure() or {}).get("out_of_memory", False)

    def _failure(self) -> JsonObject | None:
        return passed_over(lambda: read_json(self.folder / "failure.json", ("error",)), None)

    def write_failure(self, error: str, *, out_of_memory: bool = False) -> None:
        """Record a failed attempt. Behind a URL, try once to publish it."""
        write_json(self.folder / "failure.json", {"error": redact(error), "out_of_memory": out_of_memory})
        if self.mirror is not None:
            with suppress(StoreError), self.mirror.remote.patience(0.0):
                self.publish()

    def clear_failure(self) -> None:
        (self.folder / "failure.json").unlink(missing_ok=True)


@dataclass(frozen=True)
class SweepFiles:
    """The files in `sweeps/<name>/`."""

    folder: Path
    mirror: Mirror | None = field(default=None, repr=False, compare=False)

    def fetch(self) -> SweepFiles:
        """Behind a URL, download what other machines wrote since; return self."""
        if self.mirror is not None:
            self.mirror.fetch(f"sweeps/{self.folder.name}")
        return self

    def publish(self) -> None:
        """Behind a URL, upload what this machine has written."""
        if self.mirror is not None:
            self.mirror.publish(f"sweeps/{self.folder.name}")

    def synced(self) -> AbstractContextManager[None]:
        """Behind a URL, keep both sides in sync inside the `with`. The driver of the sweep uses it."""
        return nullcontext() if self.mirror is None else self.mirror.synced(f"sweeps/{self.folder.name}")

    def stops(self) -> bool:
        """Return whether the sweep is asked to stop; False at once if the URL cannot be reached."""
        if self.mirror is None:
            return self.stop.exists()
        with suppress(StoreError), self.mirror.remote.patience(0.0):
            return self.stop.name in self.mirror.remote.listing(f"sweeps/{self.folder.name}")
        return False

    @property
    def sweep(self) -> Path:
        return self.folder / "sweep.json"

    @property
    def mlflow(self) -> Path:
        """The ids of the MLflow runs that show the sweep's trials."""
        return self.folder / "mlflow.jsonl"

    @property
    def driver(self) -> Path:
        """Host, process and start of the sweep's driver; written again every few seconds, and removed when it ends."""
        return self.folder / "driver.json"

    @property
    def submitted(self) -> Path:
        """The sweep file as last submitted, for the job to read."""
        return self.folder / "submitted.yaml"

    @property
    def job(self) -> Path:
        """The Ray job of the last submission: the cluster's address and the job's id."""
        return self.folder / "job.json"

    @property
    def stop(self) -> Path:
        """Exists while the sweep is asked to stop: its trials then write their checkpoints and end."""
        return self.folder / "stop"

    def ledger(self, digest: str) -> Path:
        return self.folder / f"ledger_{digest[:12]}.jsonl"

    def study(self, ledger: Path) -> Path:
        """Optuna's journal of the search with that ledger, for optuna-dashboard."""
        return self.folder / f"{ledger.stem.replace('ledger', 'study')}.log"
