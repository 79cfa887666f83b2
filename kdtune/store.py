"""Every path and file name of the store, its locks, and the records that trials leave (no torch needed).

<store>/
  manifests/<folder digest>.json          what the video files are: sizes, times and SHA-256
  clips/<key>/                            frames.u8 or frames.jpeg, frames.npy  index.parquet  refused.csv
                                          too_short_<n>.csv  store.json  verified.json
  targets/<key>/epoch_<e>/<kind>_<b>.npy  a teacher's logits, relations or features, in blocks
  trials/<key>/                           config.json  epochs.jsonl  result.json  failure.json
                                          checkpoint.pt  checkpoint_before.pt
                                          stage_<stage>.pt  classes_<stage>.json
  sweeps/<name>/                          sweep.json  ledger_<digest>.jsonl  study_<digest>.log  mlflow.json
                                          driver.json  submitted.yaml  job.json  stop
  locks/                                  one empty file for each thing being made
  store.json                              the layout's version, and by what other machines know this store
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from kdtune.errors import Problem, StoreError
from kdtune.files import read_json, read_jsonl, write_json

#: Of the layout below; a store of another one is refused, not misread.
STORE_VERSION = 1
#: Of an epoch's row: for how many of its samples targets were computed by this trial, and found.
TARGET_COUNTS = ("targets_computed", "targets_found")


@dataclass(frozen=True)
class TrialFiles:
    """`trials/<key>/`: what a trial left, readable by anything that can read JSON."""

    folder: Path

    @property
    def key(self) -> str:
        return self.folder.name

    @property
    def config(self) -> Path:
        return self.folder / "config.json"

    @property
    def epochs(self) -> Path:
        return self.folder / "epochs.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def checkpoint_before(self) -> Path:
        """The one before, for when the last is damaged; gone when the trial is complete."""
        return self.folder / "checkpoint_before.pt"

    def stage_checkpoint(self, stage: str) -> Path:
        """The checkpoint as it was at a stage before the last epoch, for `replay --from`."""
        return self.folder / f"stage_{stage}.pt"

    def classes(self, stage: str) -> Path:
        """Of an action head, by split: names of the classes, confusion matrix, precision, recall and F1 of each."""
        return self.folder / f"classes_{stage}.json"

    def rows(self) -> list[dict[str, Any]]:
        """One row an epoch: losses, rate, seconds, and at a stage its name and accuracies."""
        return read_jsonl(self.epochs)

    def stages(self) -> dict[str, dict[str, Any]]:
        """Stage name → its accuracies, for the stages reached so far."""
        return {row["stage"]: row["evaluation"] for row in self.rows() if "stage" in row}

    def result(self) -> dict[str, Any] | None:
        """What a complete trial ended with, or None."""
        return read_json(self.folder / "result.json")

    def write_result(self, result: dict[str, Any]) -> None:
        write_json(self.folder / "result.json", result)

    def failure(self) -> str | None:
        """Why the last attempt failed, or None."""
        return (self._failure() or {}).get("error")

    def ran_out_of_memory(self) -> bool:
        """Did the last attempt fail for want of memory?"""
        return (self._failure() or {}).get("out_of_memory", False)

    def _failure(self) -> dict[str, Any] | None:
        return read_json(self.folder / "failure.json")

    def write_failure(self, error: str, *, out_of_memory: bool = False) -> None:
        write_json(self.folder / "failure.json", {"error": error, "out_of_memory": out_of_memory})

    def clear_failure(self) -> None:
        (self.folder / "failure.json").unlink(missing_ok=True)


@dataclass(frozen=True)
class SweepFiles:
    """`sweeps/<name>/`: what a sweep asked for and where MLflow shows it."""

    folder: Path

    @property
    def sweep(self) -> Path:
        return self.folder / "sweep.json"

    @property
    def mlflow(self) -> Path:
        return self.folder / "mlflow.json"

    @property
    def driver(self) -> Path:
        """Who runs the sweep: host, process, since when; touched every few seconds, and gone when it has ended."""
        return self.folder / "driver.json"

    @property
    def submitted(self) -> Path:
        """The sweep file as it was last submitted, for the job to read."""
        return self.folder / "submitted.yaml"

    @property
    def job(self) -> Path:
        """The Ray job that it was last submitted as: the cluster's address and the job's id."""
        return self.folder / "job.json"

    @property
    def stop(self) -> Path:
        """There while the sweep is asked to stop: trials then write their checkpoints and end."""
        return self.folder / "stop"

    def ledger(self, digest: str) -> Path:
        return self.folder / f"ledger_{digest[:12]}.jsonl"

    def study(self, digest: str) -> Path:
        """Optuna's journal of the search: a view of the ledger, for optuna-dashboard."""
        return self.folder / f"study_{digest[:12]}.log"


class Store:
    """The folder that `--store` names. Owns its layout; makes folders when something is written."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()

    def claim(self) -> str:
        """The store's own name, by which another machine knows that it sees the same store; made where it is missing.

        Raises StoreError for a store whose layout is of another version.
        """
        path = self.root / "store.json"
        if not path.exists():
            write_json(path, {"version": STORE_VERSION, "id": uuid.uuid4().hex})
        found = read_json(path)
        if found["version"] != STORE_VERSION:
            what = f"the store's layout is of version {found['version']}, this kdtune's of {STORE_VERSION}"
            raise StoreError([Problem(str(path), what, "another --store, or the kdtune that made it")])
        return found["id"]

    def manifest(self, folder_digest: str) -> Path:
        return self.root / "manifests" / f"{folder_digest}.json"

    def clips(self, key: str) -> Path:
        return self.root / "clips" / key

    def making_clips(self, key: str) -> Path:
        """Beside its place: a ClipStore that is being made, or whose making was interrupted."""
        return self.root / "clips" / f".{key}.making"

    def clip_stores(self) -> list[Path]:
        """The folder of each; what is still being made has a name with a dot."""
        return sorted(path for path in (self.root / "clips").glob("[!.]*") if path.is_dir())

    def targets(self, key: str, epoch: int, kind: str, block: int) -> Path:
        return self.root / "targets" / key / f"epoch_{epoch:04d}" / f"{kind}_{block:05d}.npy"

    def trial(self, key: str) -> TrialFiles:
        return TrialFiles(self.root / "trials" / key)

    def trials(self) -> list[TrialFiles]:
        """Every trial's files, by key; not the copies that an interrupted import left, whose names begin with a dot."""
        found = sorted((self.root / "trials").glob("*"))
        return [TrialFiles(path) for path in found if path.is_dir() and not path.name.startswith(".")]

    def sweep(self, name: str) -> SweepFiles:
        return SweepFiles(self.root / "sweeps" / name)

    def sweeps(self) -> list[str]:
        """The names of the sweeps that were run with this store."""
        return sorted(path.parent.name for path in (self.root / "sweeps").glob("*/sweep.json"))

    def lock(self, name: str) -> FileLock:
        """A lock between processes; the system frees it when its holder dies, however it dies."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{name}.lock")
