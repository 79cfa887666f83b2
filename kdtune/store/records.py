"""The files of a trial and of a sweep in the store. Imports no torch; any program that reads JSON can read them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, cast

from kdtune.errors import StoreError
from kdtune.parse import JsonObject
from kdtune.store.contents import EpochRecord, ResultRecord, Scores
from kdtune.store.files import read_json, read_jsonl, write_json
from kdtune.store.mirror import Mirror
from kdtune.store.seal import passed_over
from kdtune.urls import redact

#: Keys of every sweep's record.
SWEEP_RECORD = ("name", "ledger", "blocks", "objectives", "stages")
#: Keys of every trial's result.
RESULT = ("epochs", "stages", "weights_sha256", "seconds", "profile")
#: Keys of the record of the blocks' device models.
DEVICES = ("label", "blocks")
#: Keys of every row of a ledger.
LEDGER_ROW = ("event", "group")


class _File:
    """The path of a file of a folder."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, files: _Folder, _: object) -> Path:
        return files.folder / self._name


@dataclass(frozen=True)
class _Folder:
    """A folder of the store."""

    folder: Path
    mirror: Mirror | None = field(default=None, repr=False, compare=False)

    @property
    def _place(self) -> str:
        """Its path in the store, as in `trials/<key>`."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    def fetch(self, *checkpoints: Path) -> Self:
        """Behind a URL, download the records and these checkpoints if other machines wrote them since; return self."""
        if self.mirror is not None:
            self.mirror.fetch(self._place, tuple(path.name for path in checkpoints))
        return self

    def publish(self) -> None:
        """Behind a URL, upload what this machine has written. In a folder every machine sees it already."""
        if self.mirror is not None:
            self.mirror.publish(self._place)


@dataclass(frozen=True)
class TrialFiles(_Folder):
    """The files in `trials/<key>/`."""

    config = _File("config.json")
    #: Where the trial's videos were when it was trained, and how many it saw. Nothing depends on it.
    data = _File("data.json")
    #: How busy the machine was, a line per epoch; kept apart from the rows, which are the same on every machine.
    machine = _File("machine.jsonl")
    epochs = _File("epochs.jsonl")
    checkpoint = _File("checkpoint.pt")
    #: The previous checkpoint, in case the last one is damaged; removed when the trial is complete.
    checkpoint_before = _File("checkpoint_before.pt")
    result_file = _File("result.json")
    failure_file = _File("failure.json")

    def has(self, path: Path) -> bool:
        """Return whether this file of the trial exists, here or behind the URL."""
        there = {} if self.mirror is None else self.mirror.remote.listing(self._place)
        return path.exists() or path.name in there

    @property
    def unpublished(self) -> bool:
        """Whether this machine has written something that the store behind a URL lacks."""
        return self.mirror is not None and self.mirror.unpublished(self._place)

    @property
    def key(self) -> str:
        return self.folder.name

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

    def result(self) -> ResultRecord | None:
        """Return the result of a complete trial, or None. Raises DamageError if the file is damaged."""
        return cast(ResultRecord | None, read_json(self.result_file, RESULT))

    def sound_result(self) -> ResultRecord | None:
        """Return the result, or None if it is missing or damaged, for readers that train nothing."""
        return passed_over(self.result, None)

    def identity(self) -> JsonObject | None:
        """Return the trial's identity (config.key.identity), or None if its record is missing or damaged."""
        return passed_over(lambda: read_json(self.config), None)

    def write_result(self, result: ResultRecord) -> None:
        """Write the result and publish the trial."""
        write_json(self.result_file, result)
        self.publish()

    def withdraw_result(self) -> None:
        """Make a complete trial incomplete, because its files do not match its result. Call it under the trial's
        lock."""
        self.result_file.unlink(missing_ok=True)
        if self.mirror is not None:
            self.mirror.withdraw(self._place, self.result_file.name)

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
        return passed_over(lambda: read_json(self.failure_file, ("error",)), None)

    def write_failure(self, error: str, *, out_of_memory: bool = False) -> None:
        """Record a failed attempt. Behind a URL, try once to publish it."""
        write_json(self.failure_file, {"error": redact(error), "out_of_memory": out_of_memory})
        if self.mirror is not None:
            with suppress(StoreError), self.mirror.remote.patience(0.0):
                self.publish()

    def clear_failure(self) -> None:
        self.failure_file.unlink(missing_ok=True)


@dataclass(frozen=True)
class SweepFiles(_Folder):
    """The files in `sweeps/<name>/`."""

    sweep = _File("sweep.json")
    #: The ids of the MLflow runs that show the sweep's trials.
    mlflow = _File("mlflow.jsonl")
    #: Host, process and start of the sweep's driver; written again every few seconds, and removed when it ends.
    driver = _File("driver.json")
    #: On a cluster, the device model that each block keeps to.
    devices = _File("devices.json")
    #: The sweep file as last submitted, for the job to read.
    submitted = _File("submitted.yaml")
    #: The Ray job of the last submission: the cluster's address and the job's id.
    job = _File("job.json")
    #: The candidates that `report --regret` has trained to their end, a line each.
    regret = _File("regret.jsonl")
    #: Exists while the sweep is asked to stop: its trials then write their checkpoints and end.
    stop = _File("stop")

    def synced(self) -> AbstractContextManager[None]:
        """Behind a URL, keep both sides in sync inside the `with`. The driver of the sweep uses it."""
        return nullcontext() if self.mirror is None else self.mirror.synced(self._place)

    def stops(self) -> bool:
        """Return whether the sweep is asked to stop; False at once if the URL cannot be reached."""
        if self.mirror is None:
            return self.stop.exists()
        with suppress(StoreError), self.mirror.remote.patience(0.0):
            return self.stop.name in self.mirror.remote.listing(self._place)
        return False

    def regretted(self) -> set[str]:
        """Return the groups that `report --regret` has trained to their end. Damaged lines are skipped with a note."""
        return {row["group"] for row in read_jsonl(self.regret, ("group",), passing_over=True)}

    def ledger(self, digest: str) -> Path:
        return self.folder / f"ledger_{digest[:12]}.jsonl"

    def study(self, ledger: Path) -> Path:
        """Optuna's journal of the search with that ledger, for optuna-dashboard."""
        return self.folder / f"{ledger.stem.replace('ledger', 'study')}.log"
