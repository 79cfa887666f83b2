"""From a configuration to a trained trial in the store: its teacher first, its lock, its failures."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdtune.clips.dataset import TrialData
from kdtune.config.key import identity
from kdtune.config.metrics import OfCost
from kdtune.config.trial import TrialConfig
from kdtune.errors import DamageError, KdtuneError, LockLost, Problem, ResourceError, StoreError
from kdtune.store import TrialFiles
from kdtune.store.files import clear_unfinished, disk_full, disk_full_words, write_json
from kdtune.train.checkpoint import ADVICE, IMPORT_ADVICE, out_of_memory, trained_weights
from kdtune.train.cost import alike, epoch_seconds, trial_cost
from kdtune.train.initial import initial_state
from kdtune.train.prepared import Prepared
from kdtune.train.samples import Kept, Samples
from kdtune.train.soundness import complete_rows
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
    trained: set[str] = field(default_factory=set)
    """Keys of the trials that this process has begun to train or gone on with; the others were found."""
    stopping: Stopping = never
    """Asked after each step: where it says yes, a trial writes its checkpoint and ends before its time."""

    def trial(self, config: TrialConfig, device: torch.device) -> Generator[dict[str, Any], None, None]:
        """Train `config` to the end, or as long as the caller goes on, yielding its rows (see train_trial).

        A complete trial only yields what it left, and one that is told to stop ends early. A complete one whose records
        are damaged, or do not fit each other, is made complete again. One process trains a trial at a time; others wait
        for it. A failure is recorded with its error in plain words, and raised again.
        """
        files = self.files(config).fetch()
        with suppress(DamageError):  # mended below, by the holder of the lock
            rows = complete_rows(files)
            if rows is not None:
                files.clear_failure()
                if not files.unpublished:
                    yield from rows
                    return
        with self.store.lock(f"trial-{files.key}"):
            rows = self._complete_rows(config, files.fetch(files.checkpoint))
            if rows is not None:
                files.publish()  # where that has failed
                yield from rows
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
                    # Only now: the memory that the training had is free again, and the measurement needs as much.
                    files.write_result({**result, **self._cost(samples, targets, files)})
            except LockLost:
                raise  # the trial has not failed: another machine trains it
            except Exception as error:
                with suppress(OSError):  # a full disk must not hide what went wrong first
                    files.write_failure(plain_words(error), out_of_memory=out_of_memory(error))
                raise

    def weights(self, config: TrialConfig, device: torch.device) -> dict[str, Tensor]:
        """Return the weights of the complete trial `config`, which are those that its result names.

        Where its checkpoint does not hold them, it is trained again from what is sound, to the same bits. Raises
        DamageError for imported weights.
        """
        files = self.files(config)
        try:
            return trained_weights(files.fetch(files.checkpoint))
        except DamageError as error:
            if config.imported is not None:
                raise
            damaged = error
        with self.store.lock(f"trial-{files.key}"):
            try:  # what another machine has may be whole, and another process may have mended it meanwhile
                return trained_weights(files.fetch_again(files.checkpoint))
            except DamageError:
                _say(f"{_reason(damaged)}; it is trained again from what is sound")
                files.withdraw_result()
        for _ in self.trial(config, device):
            pass
        return trained_weights(files)

    def _complete_rows(self, config: TrialConfig, files: TrialFiles) -> list[dict[str, Any]] | None:
        """The rows of a complete trial; None where it has to be trained on, as where its records are not sound."""
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
            _say(f"{_reason(damaged)}; the trial is made complete again")
            files.withdraw_result()
            return None

    def _cost(self, samples: Samples, targets: Targets | None, files: TrialFiles) -> dict[str, Any]:
        """What the trial cost, for its result. A measurement that fails costs no trained trial: its figures are left
        out, and the result says why."""
        config, data, device = samples.config, samples.data, samples.device
        measured: dict[str, Any] = {"epoch_seconds": epoch_seconds(files.rows())}
        like = alike(config, data, device)
        try:
            if like not in self.costs:
                self.costs[like] = trial_cost(initial_state(config, data, None, device), samples, targets)
        except LockLost:
            raise
        except Exception as error:
            why = plain_words(error)
            _say(f"what trial {files.key[:12]}… costs could not be measured: {why}; it is complete without")
            return {"cost": measured, "cost_unmeasured": why}
        return {"cost": {**self.costs[like], **measured}}


def _say(note: str) -> None:
    print(f"kdtune: {note}", file=sys.stderr)


def _reason(error: StoreError) -> str:
    """Its problems, without the advice for who has to help himself."""
    return "; ".join(str(problem).removesuffix(f"; {ADVICE}") for problem in error.problems)


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
