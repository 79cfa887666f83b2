"""From a configuration to a trained trial in the store: its teacher first, its lock, its failures."""

from __future__ import annotations

import traceback
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kdtune.clips.dataset import TrialData
from kdtune.config.key import identity
from kdtune.config.metrics import OfCost
from kdtune.config.trial import TrialConfig
from kdtune.errors import KdtuneError, LockLost, Problem, ResourceError, StoreError
from kdtune.files import clear_unfinished, disk_full, disk_full_words, write_json
from kdtune.train.checkpoint import final_weights
from kdtune.train.cost import alike, epoch_seconds, trial_cost
from kdtune.train.initial import initial_state
from kdtune.train.prepared import Prepared
from kdtune.train.samples import Kept, Samples
from kdtune.train.targets import Targets
from kdtune.train.trial import Stopping, never, train_trial


@dataclass
class Session(Prepared):
    """Trains trials on prepared data sets."""

    workers: int = 0
    """Processes of a trial that draw and read its batches ahead. Their number changes no bit."""
    kept: Kept = field(default_factory=Kept)
    """Prepared samples that this process keeps from trial to trial. Whether they are kept changes no bit."""
    costs: dict[str, dict[OfCost, float]] = field(default_factory=dict)
    """What this process has measured that trials cost: one measurement for all that are alike."""
    stopping: Stopping = never
    """Asked after each step: where it says yes, a trial writes its checkpoint and ends before its time."""

    def trial(self, config: TrialConfig, device: torch.device) -> Generator[dict[str, Any], None, None]:
        """Train `config` to the end, or as long as the caller goes on, yielding its rows (see train_trial).

        A complete trial only yields what it left, and one that is told to stop ends early. One process trains a trial
        at a time; others wait for it. A failure is recorded with its error in plain words, and raised again.
        """
        files = self.files(config).fetch()
        if files.result() is not None:
            files.clear_failure()
            if not files.unpublished:
                yield from files.rows()
                return
        with self.store.lock(f"trial-{files.key}"):
            if files.fetch(files.checkpoint).result() is not None:
                files.publish()  # where that has failed
                yield from files.rows()
                return
            clear_unfinished(files.folder)
            files.clear_failure()
            try:
                if config.imported is not None:
                    raise StoreError(self.import_problems(config))
                data = TrialData.of(config, self.clips(config))
                for other in config.needs:
                    for _ in self.trial(other, device):
                        pass
                samples = Samples(config, data, device, self.workers, self.kept)
                targets = start = None
                if config.distils and config.teacher is not None:
                    targets = Targets(samples, self.key(config.teacher), self.store)
                if config.start is not None:
                    begun = self.files(config.start)
                    start = final_weights(begun.fetch(begun.checkpoint).checkpoint)
                write_json(files.data, data.record(config.data.folder))
                write_json(files.config, identity(config, self.manifest_of(config)))
                result = yield from train_trial(samples, targets, start, files, self.stopping)
                if result is not None:
                    # Only now: the memory that the training had is free again, and the measurement needs as much.
                    like = alike(config, data, device)
                    if like not in self.costs:
                        self.costs[like] = trial_cost(initial_state(config, data, None, device), samples, targets)
                    cost = {**self.costs[like], "epoch_seconds": epoch_seconds(files.rows())}
                    files.write_result({**result, "cost": cost})
            except LockLost:
                raise  # the trial has not failed: another machine trains it
            except Exception as error:
                with suppress(OSError):  # a full disk must not hide what went wrong first
                    files.write_failure(plain_words(error), out_of_memory=_out_of_memory(error))
                raise


def _out_of_memory(error: BaseException) -> bool:
    """Has this machine or its GPU no memory left? The CPU's allocator says so in a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def plain_words(error: BaseException) -> str:
    """An error as one line for people; for one that kdtune did not foresee, with the place where it happened."""
    if isinstance(error, KdtuneError):
        return str(error).strip()
    if disk_full(error):
        return disk_full_words(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def choose_device(name: str) -> torch.device:
    """ "auto", "cpu" or "cuda" → a device that is there. Raises ResourceError for one that is not."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ResourceError([Problem("--device", "got cuda, but torch sees no GPU", "cpu, auto")])
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
