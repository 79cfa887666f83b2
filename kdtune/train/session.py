"""Train a configuration into the store: its teacher first, one process at a time, failures recorded."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from kdtune.clips.dataset import TrialData
from kdtune.config.key import identity
from kdtune.config.trial import TrialConfig
from kdtune.errors import DamageError, KdtuneError, LockLost, ResourceError, StoreError
from kdtune.store import TrialFiles
from kdtune.store.contents import EpochRecord, MeasuredCost
from kdtune.store.files import clear_unfinished, disk_full, disk_full_words, write_json
from kdtune.train.checkpoint import ADVICE, IMPORT_ADVICE, out_of_memory, trained_weights
from kdtune.train.initial import initial_state
from kdtune.train.measuring.cost import cost_digest, epoch_seconds, trial_cost
from kdtune.train.prepared import Prepared
from kdtune.train.samples import SampleCache, Samples
from kdtune.train.soundness import complete_rows
from kdtune.train.targets import Targets
from kdtune.train.trial import StopCheck, never, train_trial

log = logging.getLogger(__name__)


@dataclass
class Session(Prepared):
    """Trains trials on prepared data sets."""

    workers: int = 0
    """Number of processes that draw and read a trial's batches ahead. It changes no bit."""
    cache: SampleCache = field(default_factory=SampleCache)
    """Prepared samples that this process keeps from trial to trial. The cache changes no bit."""
    costs: dict[str, dict[str, float]] = field(default_factory=dict)
    """Cost digest → cost, as measured by this process."""
    trained: set[str] = field(default_factory=set)
    """Keys of the trials that this process has started or resumed; it found the others complete."""
    stopping: StopCheck = never
    """Called after each step. If it returns True, the trial writes its checkpoint and stops early."""

    def trial(self, config: TrialConfig, device: torch.device) -> Generator[EpochRecord, None, None]:
        """Train `config` to its end, or until the caller stops iterating; yield its rows (see train_trial).

        A complete trial yields its recorded rows; if its records are damaged or disagree, it is completed again. One
        process trains a trial at a time; others wait for it. Records a failure in plain words and raises it again.
        Raises StoreError for an import that the store lacks, DataError if the data does not fit, TrialError if a figure
        is not finite.
        """
        files = self.files(config).fetch()
        with suppress(DamageError):  # repaired below, under the lock
            rows = complete_rows(files)
            if rows is not None:
                files.clear_failure()
                if not files.unpublished:
                    yield from rows
                    return
        with self.store.lock(f"trial-{files.key}"):
            rows = self._complete_rows(config, files.fetch(files.checkpoint))
            if rows is not None:
                files.publish()  # an earlier attempt may have failed
                yield from rows
                return
            clear_unfinished(files.folder)
            files.clear_failure()
            try:
                if config.imported is not None:
                    raise StoreError(self.import_problems(config))
                data = TrialData.of(config, self.clips(config))
                for other in config.needs:
                    self._train_first(other, "start" if other is config.start else "teacher", device)
                samples = Samples(config, data, device, self.workers, self.cache)
                targets = start = None
                if config.distils and (teacher := config.teacher) is not None:
                    view_clips = self.view_clips(config)
                    targets = Targets(
                        samples, self.key(teacher), self.store, lambda: self.weights(teacher, device), view_clips
                    )
                if config.start is not None:
                    start = self.weights(config.start, device)
                write_json(files.data, data.record(config.data.folder))
                write_json(files.config, identity(config, self.manifest_of(config)))
                self.trained.add(files.key)
                result = yield from train_trial(samples, targets, start, files, self.stopping)
                if result is not None:
                    # Only now is the training's memory free again; the measurement needs as much.
                    files.write_result({**result, **self._cost(samples, targets, files)})
            except LockLost:
                raise  # not a failure of the trial: another machine trains it
            except Exception as error:
                with suppress(OSError):  # a full disk must not hide what went wrong first
                    files.write_failure(plain_words(error), out_of_memory=out_of_memory(error))
                raise

    def _train_first(self, config: TrialConfig, role: str, device: torch.device) -> None:
        """Complete a trial that another one needs, and log that and each epoch unless the store has all of them."""
        name, complete = f"{role} {config.architecture}", False
        with suppress(DamageError):
            complete = complete_rows(self.files(config)) is not None
        if not complete:
            log.info(f"first the {name}: {config.epochs} epochs, trial {self.key(config)[:12]}…")
        for row in self.trial(config, device):
            if not complete and self.key(config) in self.trained:
                log.info(f"{name}: epoch {row['epoch']}/{config.epochs} ({row['seconds']:.1f} s)")

    def weights(self, config: TrialConfig, device: torch.device) -> dict[str, Tensor]:
        """Return the weights of the complete trial `config`, as its result names them.

        If its checkpoint does not hold them, trains it again from what is intact, to the same bits. Raises DamageError
        if the weights are imported and damaged.
        """
        files = self.files(config)
        try:
            return trained_weights(files.fetch(files.checkpoint))
        except DamageError as error:
            if config.imported is not None:
                raise
            damaged = error
        with self.store.lock(f"trial-{files.key}"):
            try:  # another machine's copy may be intact, or another process may have repaired this one
                return trained_weights(files.fetch_again(files.checkpoint))
            except DamageError:
                log.warning(f"{_reason(damaged)}; training it again from what is intact")
                files.withdraw_result()
        for _ in self.trial(config, device):
            pass
        return trained_weights(files)

    def _complete_rows(self, config: TrialConfig, files: TrialFiles) -> list[EpochRecord] | None:
        """Return the rows of a complete trial; None if it must be trained, because it is incomplete or damaged.

        Raises DamageError if the trial is imported and damaged.
        """
        try:
            return complete_rows(files)
        except DamageError as error:
            damaged = error
        try:
            return complete_rows(files.fetch_again(files.result_file, files.epochs))
        except DamageError:
            if config.imported is not None:
                problems = [replace(found, what=f"{found.what}; {IMPORT_ADVICE}") for found in damaged.problems]
                raise DamageError(problems) from damaged
            log.warning(f"{_reason(damaged)}; completing the trial again")
            files.withdraw_result()
            return None

    def _cost(self, samples: Samples, targets: Targets | None, files: TrialFiles) -> MeasuredCost:
        """Return the trial's cost for its result. If the measurement fails, return the reason instead of its figures:
        a trained trial must not be lost for it."""
        config, data, device = samples.config, samples.data, samples.device
        measured: dict[str, float] = {"epoch_seconds": epoch_seconds(files.rows())}
        same_cost = cost_digest(config, data, device)
        try:
            if same_cost not in self.costs:
                self.costs[same_cost] = trial_cost(initial_state(config, data, None, device), samples, targets)
        except LockLost:
            raise
        except Exception as error:
            why = plain_words(error)
            log.warning(f"cannot measure the cost of trial {files.key[:12]}…: {why}; the trial is complete without it")
            return {"cost": measured, "cost_unmeasured": why}
        return {"cost": {**self.costs[same_cost], **measured}}


def _reason(error: StoreError) -> str:
    """Join the error's problems without the advice, which the repair makes needless."""
    return "; ".join(str(problem).removesuffix(f"; {ADVICE}") for problem in error.problems)


def plain_words(error: BaseException) -> str:
    """Return an error as one line; for an unforeseen one, with the file and line that raised it."""
    if isinstance(error, KdtuneError):
        return str(error).strip()
    if disk_full(error):
        return disk_full_words(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def choose_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda". Raises ResourceError for cuda without a GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ResourceError.at("--device", "got cuda, but torch sees no GPU", "cpu, auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
