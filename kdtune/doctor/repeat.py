"""Does this machine repeat a trial's bits? Short trials through the whole trainer: twice, and two at the same time."""

from __future__ import annotations

import multiprocessing
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from kdtune.clips.rendered import rendered_clips
from kdtune.clips.store import ClipStore
from kdtune.config.trial import TrialConfig
from kdtune.store import Store
from kdtune.train.checkpoint import content_digest
from kdtune.train.operators import find_operators
from kdtune.train.prepared import source_id
from kdtune.train.replay import CLOCK, differences
from kdtune.train.session import Session, plain_words

NETWORKS = (("c3d", 10), ("r3d", 10), ("r3d", 18), ("r21d", 10), ("r21d", 18))
CONTRASTS = ("memory_bank", "in_batch")
#: On the CPU, in bfloat16: its kernels are other ones, and one network shows them.
ONE = (("r3d", 10), "memory_bank")


def short_trials(*, full: bool, cpu: bool) -> list[TrialConfig]:
    """The papers' networks and contrasts in fp32 and bf16: small ones, or with the papers' sizes at T = 10 and 16."""
    lengths = (10, 16) if full else (8,)
    forms = [
        {
            # The folder is never looked at: a Session is told where the clips are.
            "data": {"dataset": "synthetic", "root": "rendered", "validation": 0.3},
            "clip": {"frames": frames, **({} if full else {"size": 32})},
            "student": {"backbone": backbone, "depth": depth, **({} if full else {"width": 8})},
            "loss": {"contrast": contrast},
            "optimizer": {} if full else {"batch": 4},
            "evaluation": {"clips": 2},
            "epochs": 2,
            "stages": {"late": 2},
            "precision": precision,
        }
        for precision, frames in product(("fp32", "bf16"), lengths)
        for (backbone, depth), contrast in product(NETWORKS, CONTRASTS)
        if full or not cpu or precision == "fp32" or ((backbone, depth), contrast) == ONE
    ]
    return [TrialConfig.model_validate(form) for form in forms]


def short_clips(folder: Path, *, full: bool) -> ClipStore:
    """Videos for these trials, in the new `folder`: enough for two steps an epoch."""
    size = short_trials(full=full, cpu=True)[0].clip.stored_size
    classes = ("SpinLeft", "Rise", "Grow", "Shake")
    return rendered_clips(folder, size, classes=classes, groups=6 if full else 3, clips=2)


@dataclass(frozen=True)
class Ended:
    """How a trial ended: all that has to repeat."""

    rows: list[dict[str, Any]]
    """Of each epoch, without the clock's figures."""
    weights: str
    """Their SHA-256; empty where the trial failed."""
    error: str
    """Why it failed, in plain words; empty where it did not."""

    @property
    def digest(self) -> str:
        """The first digits of a SHA-256 over every figure of every epoch and the weights."""
        return content_digest([self.rows, self.weights, self.error])[:12]


def trained(config: TrialConfig, clips: Path, device: torch.device) -> Ended:
    """Train from nothing, in a store of its own beside the clips; where the process is killed, that store stays."""
    rows, weights, failure = [], "", ""
    with tempfile.TemporaryDirectory(dir=clips.parent) as folder:
        session = Session(Store(folder), {source_id(config.data, config.clip): str(clips)})
        try:
            for row in session.trial(config, device):
                rows.append({name: value for name, value in row.items() if name not in CLOCK})
            result = session.files(config).result()
            assert result is not None, "a trial that ends has a result"
            weights = result["weights_sha256"]
        except Exception as error:
            failure = plain_words(error)
    torch.cuda.empty_cache()  # the next one may be trained by another process
    return Ended(rows, weights, failure)


def difference(was: Ended, now: Ended) -> str:
    """The first figure in which two runs of a trial differ, or that one of them failed; empty where none does."""
    for row, other in zip(was.rows, now.rows, strict=False):
        for figure, a, b in differences(row, other):
            return f"epoch {row['epoch']}, {figure}: was {a!r}, then {b!r}"
    if was.error != now.error:
        return f"one run failed: {was.error or now.error}"
    return "" if was.weights == now.weights else f"weights: was {was.weights}, then {now.weights}"


def trained_twice(config: TrialConfig, clips: Path, device: torch.device) -> tuple[Ended, str]:
    """How a trial ended, and why it is not to be relied on, with the operators; empty where every bit repeated."""
    first = trained(config, clips, device)
    problem = first.error or difference(first, trained(config, clips, device))
    if problem:
        operators = find_operators(lambda: trained(config, clips, device))
        # Where torch refuses operators, the trial's error is the first of them, at length.
        problem = str(operators) if operators.refused else f"{problem}; {operators}"
    return first, problem


class Pair:
    """Two processes that train a trial at the same time on the same device."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a process that has used CUDA cannot be forked
        self._workers = []
        for _ in range(2):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()  # or the end of the process would go unseen
            self._workers.append((process, ours))
        for _, work in self._workers:
            work.recv()  # it is there: nothing keeps the two from beginning together

    def _stop(self) -> None:
        for process, work in self._workers:
            process.terminate()
            process.join()
            work.close()

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def trained(self, config: TrialConfig, clips: Path, device: torch.device) -> list[Ended]:
        """How the trial ended in each of the two."""
        try:
            for _, work in self._workers:
                work.send((config, clips, device))
            return [work.recv() for _, work in self._workers]
        except (EOFError, OSError):
            self._stop()
            self._start()
            return [Ended([], "", "its process died (killed, or out of memory)")]


def _serve(work: Connection) -> None:
    with suppress(EOFError, KeyboardInterrupt):  # the one who asks is gone
        work.send("here")
        while True:
            work.send(trained(*work.recv()))
