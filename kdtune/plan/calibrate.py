"""A short calibration for `plan --measure`: a few real steps, targets and evaluations of each shape on the real frames.

It happens in a store of its own that is gone afterwards. What remains is a file of figures for each shape.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from statistics import median

import torch

from kdtune.clips.dataset import TrialData
from kdtune.config.key import canonical
from kdtune.config.trial import TrialConfig
from kdtune.models.heads import build_network
from kdtune.plan.shapes import bank_bytes, described
from kdtune.plan.speeds import Speed
from kdtune.store import Store
from kdtune.store.files import write_json
from kdtune.train.checkpoint import kept_weights, read_checkpoint
from kdtune.train.evaluate import EVALUATION_BATCH, evaluate
from kdtune.train.imports import import_trial
from kdtune.train.prepared import Prepared
from kdtune.train.profile import make_deterministic, profile, state_digest
from kdtune.train.samples import Samples
from kdtune.train.session import Session
from kdtune.train.targets import BLOCK, Targets

#: After a first step so many are timed at least, and more of them, up to so many, while they take less than STEPS_S.
STEPS, MOST_STEPS, STEPS_S = 2, 30, 2.0
#: What took less is done once more before it counts: the first time of anything is slow.
WARM_UP_S = 1.0
#: Samples of a step, and videos of each split in an evaluation, where the real number would take longer than LONG_S:
#: large clips take their time one by one.
FEW, LONG_S = 2, 20.0


def measure(
    shapes: Mapping[str, TrialConfig],
    prepared: Prepared,
    device: torch.device,
    workers: int,
    say: Callable[[str], object],
) -> None:
    """Time a trial of each shape (its digest first) and leave the figures in the store of `prepared`."""
    with tempfile.TemporaryDirectory(prefix="kdtune-measure-") as folder:
        bench = _Bench(prepared, Session(Store(folder), dict(prepared.folders), workers), device)
        for i, (shape, config) in enumerate(shapes.items(), 1):
            say(f"measuring {i} of {len(shapes)}: {described(config)}")
            write_json(prepared.store.measured(shape), asdict(bench.speed(config)))


class _Clock:
    """Knows when each step of a trial has ended, and stops it after enough of them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.ends: list[float] = []

    def __call__(self) -> bool:
        self.ends.append(_now(self.device))
        timed = len(self.ends) - 1
        return timed >= MOST_STEPS or (timed >= STEPS and self.ends[-1] - self.ends[0] >= STEPS_S)

    @property
    def step_s(self) -> float:
        """The median: at an epoch's end other things are done between two steps."""
        return median(after - before for before, after in zip(self.ends, self.ends[1:], strict=False))


class _Bench:
    """Times trials, and keeps what several of them need."""

    def __init__(self, prepared: Prepared, session: Session, device: torch.device) -> None:
        self.prepared, self.session, self.device = prepared, session, device
        self._targets_s: dict[str, float] = {}

    def speed(self, config: TrialConfig) -> Speed:
        config = self._short(config)
        make_deterministic(config)
        for other in config.needs:
            self._complete(other)
        data = TrialData.of(config, self.session.clips(config))
        target_s = self._target_s(config, data) if config.distils else 0.0
        batch = config.optimizer.batch
        sample_s, size = self._sample_s(_with_batch(config, min(FEW, batch)), data)
        if sample_s * batch < LONG_S:
            sample_s, size = self._sample_s(config, data)
        return Speed(
            device=profile(config, self.device, data.clips)["device"],
            sample_s=sample_s,
            target_s=target_s,
            video_s=self._video_s(config, data),
            checkpoint_bytes=size - bank_bytes(canonical(config), data.size),
        )

    def _short(self, config: TrialConfig) -> TrialConfig:
        """The same trial on a few videos and without stages, as are those that it needs."""
        if config.imported is not None:
            return config
        total = len(TrialData.of(config, self.session.clips(config)).order)
        samples = min(total, max(BLOCK, config.optimizer.batch * (STEPS + 1)))
        return config.model_copy(
            update={
                "data": config.data.model_copy(update={"fraction": samples / total}),
                "epochs": max(config.epochs, MOST_STEPS + 1),
                "stages": {},
                "stage": config.stage.model_copy(update={"every": 0}),
                "finetune": None,
                "teacher": self._short(config.teacher) if config.teacher is not None else None,
                "start": self._short(config.start) if config.start is not None else None,
            }
        )

    def _complete(self, config: TrialConfig) -> None:
        """Make a teacher or a start: how well it was trained changes no time."""
        files = self.session.files(config)
        if files.result() is not None:
            return
        if config.imported is not None:
            import_trial(self.prepared.files(config).folder, self.session.store)
            return
        for other in config.needs:
            self._complete(other)
        self._train(config, lambda: True)
        weights = kept_weights(read_checkpoint(files.checkpoint), files.checkpoint)
        files.write_result({"epochs": len(files.rows()), "stages": {}, "weights_sha256": state_digest(weights)})

    def _train(self, config: TrialConfig, stopping: Callable[[], bool]) -> None:
        self.session.stopping = stopping
        for _ in self.session.trial(config, self.device):
            pass

    def _sample_s(self, config: TrialConfig, data: TrialData) -> tuple[float, int]:
        """Seconds of a training step for each of its samples, and the size of a checkpoint in bytes."""
        files, clock = self.session.files(config), _Clock(self.device)
        shutil.rmtree(files.folder, ignore_errors=True)  # it may have been another one's teacher
        self._train(config, clock)
        return clock.step_s / min(config.optimizer.batch, data.size), files.checkpoint.stat().st_size

    def _target_s(self, config: TrialConfig, data: TrialData) -> float:
        assert config.teacher is not None
        samples = Samples(config, data, self.device)
        view_clips = self.session.view_clips(config)
        targets = Targets(samples, self.session.key(config.teacher), self.session.store, view_clips=view_clips)
        if targets.key not in self._targets_s:  # else those of these epochs are there, and would be found
            samples_made = min(len(data.order), BLOCK * -(-data.size // BLOCK))
            seconds = self._timed(lambda: targets.epoch(1))
            if seconds < WARM_UP_S:
                seconds = self._timed(lambda: targets.epoch(2))
            self._targets_s[targets.key] = seconds / samples_made
        return self._targets_s[targets.key]

    def _video_s(self, config: TrialConfig, data: TrialData) -> float:
        network = build_network(config, data.classes).to(self.device)

        def of(videos: int) -> tuple[float, int]:
            """Seconds for so many videos of each split, and how many there were."""
            size, validation, test = min(videos, data.size), data.validation[:videos], data.test[:videos]
            some = replace(data, size=size, validation=validation, test=test)
            return self._timed(lambda: evaluate(network, Samples(config, some, self.device))), some.evaluated

        seconds, videos = of(FEW)
        if seconds * EVALUATION_BATCH / FEW < LONG_S:
            seconds, videos = of(EVALUATION_BATCH)
        return seconds / videos

    def _timed(self, run: Callable[[], object]) -> float:
        started = _now(self.device)
        run()
        return _now(self.device) - started


def _with_batch(config: TrialConfig, batch: int) -> TrialConfig:
    return config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"batch": batch})})


def _now(device: torch.device) -> float:
    """When all that was asked of the device is done, in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
