"""Every path and file name of the store, and its locks (no torch needed).

A store is a folder that all machines see, or a URL of which each has a working copy with the same layout (mirror.py).

<store>/
  manifests/<folder digest>.json          what the video files are: sizes, times and SHA-256
  clips/<key>/                            frames.u8 or frames.jpeg, frames.npy  index.parquet  refused.csv
                                          too_short_<n>.csv  store.json  verified.json
  targets/<key>/epoch_<e>/<kind>_<b>.npy  a teacher's logits, relations or features, in blocks
  trials/<key>/                           config.json  epochs.jsonl  result.json  failure.json
                                          data.json  machine.jsonl
                                          checkpoint.pt  checkpoint_before.pt
                                          stage_<stage>.pt  classes_<stage>.json
  sweeps/<name>/                          sweep.json  ledger_<digest>.jsonl  study_<digest>.log  mlflow.jsonl
                                          driver.json  submitted.yaml  job.json  stop
  reports/<name>/                         what `report` makes: report.html  report.md  plots/  tables/
  measured/<shape>.json                   how fast trials of a shape are, by `plan --measure`
  mirror/                                 of a working copy: what of it is the same behind the URL
  locks/                                  one empty file for each thing being made
  store.json                              the layout's version, and by what other machines know this store
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from kdtune.errors import Problem, StoreError
from kdtune.names import is_name, quoted, stays_below
from kdtune.store.copies import fetch_missing, fetch_whole, publish_whole
from kdtune.store.files import read_json, write_json
from kdtune.store.lease import SharedLock
from kdtune.store.mirror import Mirror
from kdtune.store.places import check_writable
from kdtune.store.records import SWEEP_RECORD, SweepFiles, TrialFiles
from kdtune.urls import SecretUrl

__all__ = ["STORE_VERSION", "TARGET_COUNTS", "Store", "SweepFiles", "TrialFiles"]

#: Of the layout above; a store of another one is refused, not misread.
STORE_VERSION = 2
#: Of an epoch's row: for how many of its samples targets were computed by this trial, and found.
TARGET_COUNTS = ("targets_computed", "targets_found")


class Store:
    """What `--store` names: a folder, or a URL with a working copy in `root`. Makes folders when it writes."""

    def __init__(self, place: str | Path, reached: bool = False) -> None:
        url = str(place) if "://" in str(place) and not str(place).startswith("file://") else None
        self.mirror = None if url is None else Mirror.of(url, reached)
        self.root = Path(str(place).removeprefix("file://")).absolute() if self.mirror is None else self.mirror.root

    def __reduce__(self) -> tuple[type[Store], tuple[str, bool]]:
        """Another machine has its own working copy; and that the URL can be reached has been seen here."""
        return type(self), (self.place.reveal(), True)

    @property
    def place(self) -> SecretUrl:
        """As `--store` takes it, on any machine."""
        return SecretUrl(str(self.root)) if self.mirror is None else self.mirror.remote.url

    def check(self) -> None:
        """Write something and remove it, once, before any work.

        Raises StoreError for a folder that cannot be written, or a URL that cannot be reached or written to; OSError
        for a full disk.
        """
        check_writable(self.root, "--store" if self.mirror is None else "KDTUNE_CACHE")
        if self.mirror is not None:
            self.mirror.remote.check_writable()

    def claim(self) -> str:
        """The store's own name, by which another machine knows that it sees the same store; made where it is missing.

        Raises StoreError for a store whose layout is of another version.
        """
        path = self.root / "store.json"
        if self.mirror is not None:
            self.mirror.remote.get(path.name, path)
        if not path.exists():
            write_json(path, {"version": STORE_VERSION, "id": uuid.uuid4().hex})
            if self.mirror is not None and not self.mirror.remote.create(path.name, path.read_bytes()):
                self.mirror.remote.get(path.name, path)
        found = read_json(path, ("version", "id")) or {}
        if found["version"] != STORE_VERSION:
            what = f"the store's layout is of version {found['version']}, this kdtune's of {STORE_VERSION}"
            raise StoreError([Problem(str(path), what, "another --store, or the kdtune that made it")])
        return found["id"]

    def manifest(self, folder_digest: str) -> Path:
        return self.root / "manifests" / f"{folder_digest}.json"

    # ---- frames ------------------------------------------------------------------------------------------------------

    def clips(self, key: str) -> Path:
        return self.root / "clips" / key

    def making_clips(self, key: str) -> Path:
        """Beside its place: a ClipStore that is being made, or whose making was interrupted."""
        return self.root / "clips" / f".{key}.making"

    def clip_stores(self) -> list[Path]:
        """The folder of each; what is still being made has a name with a dot."""
        return sorted(path for path in (self.root / "clips").glob("[!.]*") if path.is_dir())

    def fetch_clips(self, folder: Path) -> Path:
        """Where the ClipStore is here that some machine has in `folder`: of a store behind a URL it is copied once."""
        if self.mirror is None:
            return folder
        here = self.clips(folder.name)
        with self.lock_here(f"copy-{here.name}"):
            if here.is_dir() or fetch_whole(self.mirror.remote, f"clips/{here.name}", here):
                return here
        return folder

    def fetch_clips_that(self, fits: Callable[[dict[str, Any]], bool]) -> Path | None:
        """Of a store behind a URL: copy the first ClipStore whose store.json `fits`; None where there is none."""
        for folder in self.mirror.remote.tree("clips") if self.mirror is not None else ():
            record = self.mirror.remote.read(f"{folder}/store.json") if self.mirror is not None else None
            if record is not None and fits(json.loads(record)):
                return self.fetch_clips(self.root / folder)
        return None

    def publish_clips(self, key: str, names: Iterable[str]) -> None:
        """Of a store behind a URL: bring there these files of a finished ClipStore."""
        if self.mirror is not None:
            publish_whole(self.mirror.remote, f"clips/{key}", self.clips(key), names, "store.json")

    # ---- targets -----------------------------------------------------------------------------------------------------

    def targets(self, key: str, epoch: int, kind: str, block: int) -> Path:
        return self.root / "targets" / key / f"epoch_{epoch:04d}" / f"{kind}_{block:05d}.npy"

    def measured(self, shape: str) -> Path:
        return self.root / "measured" / f"{shape}.json"

    def fetch_targets(self, key: str, epoch: int) -> None:
        """Of a store behind a URL: bring the blocks of an epoch that others have computed."""
        if self.mirror is not None:
            place = self.targets(key, epoch, "", 0).parent
            fetch_missing(self.mirror.remote, self._name(place), place)

    def fetch_file(self, path: Path) -> bool:
        """Of a store behind a URL: bring one file; whether it was there."""
        return self.mirror is not None and self.mirror.remote.get(self._name(path), path)

    def publish_file(self, path: Path) -> None:
        """Of a store behind a URL: bring one file there."""
        if self.mirror is not None:
            self.mirror.remote.put(path, self._name(path))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    # ---- trials and sweeps -------------------------------------------------------------------------------------------

    def trial(self, key: str) -> TrialFiles:
        """The files of a trial. Raises StoreError for a key that would lead out of `trials/`."""
        if not stays_below(key):
            raise StoreError([Problem(str(self.root), f"holds no trial named {quoted(key)}")])
        return TrialFiles(self.root / "trials" / key, self.mirror)

    def fetch_trials(self, keys: Iterable[str] | None = None) -> None:
        """Of a store behind a URL: bring the records of these trials, or of all, that others wrote since."""
        if self.mirror is not None:
            self.mirror.fetch_all("trials", keys)

    def trials(self) -> list[TrialFiles]:
        """Every trial's files, by key; not the copies that an interrupted import left, whose names begin with a dot."""
        self.fetch_trials()
        found = sorted((self.root / "trials").glob("*"))
        return [self.trial(path.name) for path in found if path.is_dir() and not path.name.startswith(".")]

    def sweep(self, name: str) -> SweepFiles:
        """The files of a sweep, known or new. Raises StoreError for what is no name of a sweep."""
        if not is_name(name):
            raise self._no_sweep(name)
        return SweepFiles(self.root / "sweeps" / name, self.mirror)

    def _no_sweep(self, name: str) -> StoreError:
        known = ", ".join(self.sweeps()) or "none yet"
        return StoreError([Problem(str(self.root), f"holds no sweep named {quoted(name)}", known)])

    def report(self, name: str) -> Path:
        """Where `report` writes what it makes of a sweep; of a store behind a URL it stays here.

        Raises StoreError for what is no name of a sweep.
        """
        if not is_name(name):
            raise self._no_sweep(name)
        return self.root / "reports" / name

    def sweep_record(self, name: str) -> dict[str, Any]:
        """What the driver wrote of a sweep before its first event. Raises StoreError for an unknown name."""
        record = read_json(self.sweep(name).sweep, SWEEP_RECORD)
        if record is None:
            raise self._no_sweep(name)
        return record

    def sweeps(self) -> list[str]:
        """The names of the sweeps that were run with this store."""
        if self.mirror is not None:
            self.mirror.fetch_all("sweeps")
        return sorted(path.parent.name for path in (self.root / "sweeps").glob("*/sweep.json"))

    # ---- locks -------------------------------------------------------------------------------------------------------

    def lock(self, name: str) -> FileLock | SharedLock:
        """A lock between all processes that see the store. The system frees it when its holder dies, however it dies;
        of a store behind a URL, where the holder's machine is another one, that takes 45 seconds."""
        here = self.lock_here(name)
        return here if self.mirror is None else self.mirror.lock(name, here)

    def lock_here(self, name: str) -> FileLock:
        """A lock between the processes of this machine or, where the store is a folder, of all that see it."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{name}.lock")
