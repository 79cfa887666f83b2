"""Every path and file name of the store, and its locks. Imports no torch.

A store is a folder that all machines share, or a URL of which each machine has a working copy of the same layout
(mirror.py).

<store>/
  manifests/<folder digest>.json          sizes, times and SHA-256 of the video files
  clips/<key>/                            frames.u8 or frames.jpeg, frames.npy  index.parquet  refused.csv
                                          too_short_<n>.csv  store.json  verified.json
  targets/<key>/epoch_<e>/<kind>_<b>.npy  blocks of a teacher's logits, relations or features
  trials/<key>/                           config.json  epochs.jsonl  result.json  failure.json
                                          data.json  machine.jsonl
                                          checkpoint.pt  checkpoint_before.pt
                                          stage_<stage>.pt  classes_<stage>.json
  sweeps/<name>/                          sweep.json  ledger_<digest>.jsonl  study_<digest>.log  mlflow.jsonl
                                          driver.json  submitted.yaml  job.json  devices.json  stop
  reports/<name>/                         from `report`: report.html  report.md  plots/  tables/
  measured/<shape>.json                   from `plan --measure`: the speed of trials of a shape
  mirror/                                 in a working copy: the last state that was the same behind the URL
  locks/                                  one empty file for each lock
  store.json                              the layout's version, and the id by which machines know this store
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from filelock import FileLock

from kdtune.errors import StoreError
from kdtune.names import is_name, quoted, stays_below
from kdtune.near import did_you_mean
from kdtune.parse import JsonObject
from kdtune.store.copies import fetch_missing, fetch_whole, publish_whole
from kdtune.store.files import read_json, write_json
from kdtune.store.held import is_held
from kdtune.store.lease import Lease, SharedLock
from kdtune.store.mirror import Mirror
from kdtune.store.places import check_writable
from kdtune.store.records import SWEEP_RECORD, SweepFiles, TrialFiles
from kdtune.store.seal import passed_over
from kdtune.urls import SecretUrl

__all__ = ["STORE_VERSION", "TARGET_COUNTS", "StoreFiles", "SweepFiles", "TrialFiles"]

#: Version of the layout above. A store of another version is refused.
STORE_VERSION = 2
#: Fields of an epoch's row: the number of samples whose targets the trial computed, and found.
TARGET_COUNTS: tuple[Literal["targets_computed", "targets_found"], ...] = ("targets_computed", "targets_found")


class StoreFiles:
    """A store: a folder, or a URL with a working copy in `root`. Makes folders when it writes."""

    def __init__(self, place: str | Path, reached: bool = False) -> None:
        url = str(place) if "://" in str(place) and not str(place).startswith("file://") else None
        self.mirror = None if url is None else Mirror.of(url, reached)
        self.root = Path(str(place).removeprefix("file://")).absolute() if self.mirror is None else self.mirror.root

    def __reduce__(self) -> tuple[type[StoreFiles], tuple[str, bool]]:
        """Pickle the URL only: each machine has its own working copy. The URL has already been reached from here."""
        return type(self), (self.place.reveal(), True)

    @property
    def place(self) -> SecretUrl:
        """The value for `--store`, on any machine."""
        return SecretUrl(str(self.root)) if self.mirror is None else self.mirror.remote.url

    def check(self) -> None:
        """Check, before any work, that the store can be written.

        Raises StoreError if the folder cannot be written, or the URL cannot be reached or written to; OSError for a
        full disk.
        """
        check_writable(self.root, "--store" if self.mirror is None else "KDTUNE_CACHE")
        if self.mirror is not None:
            self.mirror.remote.check_writable()

    def claim(self) -> str:
        """Return the store's id, by which machines know that they see the same store; make it if it is missing.

        Raises StoreError if the store's layout is of another version.
        """
        path = self.root / "store.json"
        if self.mirror is not None:
            self.mirror.remote.get(path.name, path)
        if not path.exists():
            write_json(path, {"version": STORE_VERSION, "id": uuid.uuid4().hex})
            if self.mirror is not None and not self.mirror.remote.create(path.name, path.read_bytes()):
                self.mirror.remote.get(path.name, path)
        return self._identity(path)["id"]

    def check_version(self) -> None:
        """Raise StoreError if the store's layout is of another version. Readers call it: they need not claim a store.

        A store whose identity is missing or damaged passes: its records say what is wrong with them.
        """
        path = self.root / "store.json"
        if self.mirror is not None and not path.exists():
            self.mirror.remote.get(path.name, path)
        if path.exists():
            passed_over(lambda: bool(self._identity(path)), True)

    def _identity(self, path: Path) -> JsonObject:
        found = read_json(path, ("version", "id")) or {}
        if found["version"] != STORE_VERSION:
            what = f"the store's layout has version {found['version']}, but this kdtune needs {STORE_VERSION}"
            raise StoreError.at(path, what, "another --store, or the kdtune that made it")
        return found

    def manifest(self, folder_digest: str) -> Path:
        return self.root / "manifests" / f"{folder_digest}.json"

    # ---- frames ------------------------------------------------------------------------------------------------------

    def clips(self, key: str) -> Path:
        return self.root / "clips" / key

    def making_clips(self, key: str) -> Path:
        """The folder of a ClipStore that is being made, or whose making was interrupted."""
        return self.root / "clips" / f".{key}.making"

    def clip_stores(self) -> list[Path]:
        """Return the folder of every finished ClipStore. Unfinished ones have names with a dot."""
        return sorted(path for path in (self.root / "clips").glob("[!.]*") if path.is_dir())

    def fetch_clips(self, folder: Path) -> Path:
        """Return this machine's folder of the ClipStore that another machine has in `folder`.

        Behind a URL it is downloaded once.
        """
        if self.mirror is None:
            return folder
        here = self.clips(folder.name)
        with self.lock_here(f"copy-{here.name}"):
            if here.is_dir() or fetch_whole(self.mirror.remote, f"clips/{here.name}", here):
                return here
        return folder

    def fetch_clips_that(self, fits: Callable[[JsonObject], bool]) -> Path | None:
        """Behind a URL, download the first ClipStore whose store.json `fits`; return None if there is none."""
        for folder in self.mirror.remote.tree("clips") if self.mirror is not None else ():
            record = self.mirror.remote.read(f"{folder}/store.json") if self.mirror is not None else None
            if record is not None and fits(json.loads(record)):
                return self.fetch_clips(self.root / folder)
        return None

    def publish_clips(self, key: str, names: Iterable[str]) -> None:
        """Behind a URL, upload the files `names` of a finished ClipStore."""
        if self.mirror is not None:
            publish_whole(self.mirror.remote, f"clips/{key}", self.clips(key), names, "store.json")

    # ---- targets -----------------------------------------------------------------------------------------------------

    def targets(self, key: str, epoch: int, kind: str, block: int) -> Path:
        return self.root / "targets" / key / f"epoch_{epoch:04d}" / f"{kind}_{block:05d}.npy"

    def measured(self, shape: str) -> Path:
        return self.root / "measured" / f"{shape}.json"

    def fetch_targets(self, key: str, epoch: int) -> None:
        """Behind a URL, download the blocks of an epoch that other machines have computed."""
        if self.mirror is not None:
            place = self.targets(key, epoch, "", 0).parent
            fetch_missing(self.mirror.remote, self._name(place), place)

    def fetch_file(self, path: Path) -> bool:
        """Behind a URL, download one file; return whether it existed there."""
        return self.mirror is not None and self.mirror.remote.get(self._name(path), path)

    def publish_file(self, path: Path) -> None:
        """Behind a URL, upload one file."""
        if self.mirror is not None:
            self.mirror.remote.put(path, self._name(path))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    # ---- trials and sweeps -------------------------------------------------------------------------------------------

    def trial(self, key: str) -> TrialFiles:
        """Return the files of a trial. Raises StoreError for a key that would lead out of `trials/`."""
        if not stays_below(key):
            raise StoreError.at(self.root, f"holds no trial named {quoted(key)}")
        return TrialFiles(self.root / "trials" / key, self.mirror)

    def fetch_trials(self, keys: Iterable[str] | None = None) -> None:
        """Behind a URL, download the records that other machines wrote since, of the trials `keys` or of all."""
        if self.mirror is not None:
            self.mirror.fetch_all("trials", keys)

    def trials(self) -> list[TrialFiles]:
        """Return every trial's files, sorted by key. Skips leftovers of interrupted imports (names with a dot)."""
        self.fetch_trials()
        found = sorted((self.root / "trials").glob("*"))
        return [self.trial(path.name) for path in found if path.is_dir() and not path.name.startswith(".")]

    def sweep(self, name: str) -> SweepFiles:
        """Return the files of a sweep, known or new. Raises StoreError for an invalid name."""
        if not is_name(name):
            raise self._no_sweep(name)
        return SweepFiles(self.root / "sweeps" / name, self.mirror)

    def _no_sweep(self, name: str) -> StoreError:
        names = self.sweeps()
        what = f"holds no sweep named {quoted(name)}{did_you_mean(name, names)}"
        return StoreError.at(self.root, what, ", ".join(names) or "none yet")

    def report(self, name: str) -> Path:
        """Return the folder of a sweep's report, which stays on this machine even behind a URL.

        Raises StoreError for an invalid name.
        """
        return self.root / "reports" / self.sweep(name).folder.name

    def sweep_record(self, name: str) -> JsonObject:
        """Return the record that the driver writes before a sweep's first event.

        Raises StoreError for an unknown name, and DamageError for a damaged record.
        """
        record = read_json(self.sweep(name).sweep, SWEEP_RECORD)
        if record is None:
            raise self._no_sweep(name)
        return record

    def sweeps(self) -> list[str]:
        """Return the names of the sweeps in this store."""
        if self.mirror is not None:
            self.mirror.fetch_all("sweeps")
        return sorted(path.parent.name for path in (self.root / "sweeps").glob("*/sweep.json"))

    # ---- locks -------------------------------------------------------------------------------------------------------

    def lock(self, name: str) -> FileLock | SharedLock:
        """Return a lock among all processes that share the store. It is freed when its holder dies; behind a URL that
        takes 45 seconds if the holder was on another machine."""
        here = self.lock_here(name)
        return here if self.mirror is None else self.mirror.lock(name, here)

    def lock_here(self, name: str) -> FileLock:
        """Return a lock among this machine's processes; if the store is a folder, among all that share it."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{name}.lock")

    def is_locked_here(self, name: str) -> bool:
        """Return whether a process holds `lock_here`. Nothing is written, so this works in a store that is read-only.

        A process that asks for the lock at this very moment finds it taken, and must try again.
        """
        return is_held(self.root / "locks" / f"{name}.lock")

    def lock_beat(self, name: str) -> str | None:
        """Return, of a store behind a URL, what changes every BEAT_S while a machine holds `lock`; None where it is
        free."""
        return None if self.mirror is None else Lease(self.mirror.remote, name, "").beat()
