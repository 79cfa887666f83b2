"""Check that this machine repeats a trial's bits: run short trials through the whole trainer, twice and in pairs."""

from __future__ import annotations

import multiprocessing
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from kdtune.clips.frames.rendered import rendered_clips
from kdtune.clips.frames.store import ClipStore
from kdtune.config.trial import TrialConfig
from kdtune.store import StoreFiles
from kdtune.train.checkpoint import content_digest
from kdtune.train.operators import find_operators
from kdtune.train.prepared import source_id
from kdtune.train.replay import CLOCK, differences
from kdtune.train.session import Session, plain_words

NETWORKS = (("c3d", 10), ("r3d", 10), ("r3d", 18), ("r21d", 10), ("r21d", 18))
CONTRASTS = ("memory_bank", "in_batch")
#: The only trial in bfloat16 on the CPU: one network exercises all of its kernels there.
BF16_ON_CPU = (("r3d", 10), "memory_bank")


def short_trials(*, full: bool, cpu: bool) -> list[TrialConfig]:
    """Return trials of the papers' networks and contrasts in fp32 and bf16: small, or with `full` at the papers' sizes
    (T = 10 and 16)."""
    lengths = (10, 16) if full else (8,)
    forms = [
        {
            # The folder is never read: the Session knows where the clips are.
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
        if full or not cpu or precision == "fp32" or ((backbone, depth), contrast) == BF16_ON_CPU
    ]
    return [TrialConfig.model_validate(form) for form in forms]


def short_clips(folder: Path, *, full: bool) -> ClipStore:
    """Make videos for these trials in the new `folder`: enough for two steps per epoch."""
    size = short_trials(full=full, cpu=True)[0].clip.stored_size
    classes = ("SpinLeft", "Rise", "Grow", "Shake")
    return rendered_clips(folder, size, classes=classes, groups=6 if full else 3, clips=2)


@dataclass(frozen=True)
class Ended:
    """How a trial ended: everything that must repeat."""

    rows: list[dict[str, object]]
    """Each epoch's row without the CLOCK fields."""
    weights: str
    """SHA-256 of the weights; empty if the trial failed."""
    error: str
    """Why the trial failed, in plain words; empty if it did not."""

    @property
    def digest(self) -> str:
        """12 hex digits of a SHA-256 over every figure of every epoch and the weights."""
        return content_digest([self.rows, self.weights, self.error])[:12]


def trained(config: TrialConfig, clips: Path, device: torch.device) -> Ended:
    """Train from scratch in a temporary store beside the clips. If the process is killed, that store remains."""
    rows, weights, failure = [], "", ""
    with tempfile.TemporaryDirectory(dir=clips.parent) as folder:
        session = Session(StoreFiles(folder), {source_id(config.data, config.clip): str(clips)})
        try:
            for row in session.trial(config, device):
                rows.append({name: value for name, value in row.items() if name not in CLOCK})
            result = session.files(config).result()
            assert result is not None, "a finished trial has a result"
            weights = result["weights_sha256"]
        except Exception as error:
            failure = plain_words(error)
    torch.cuda.empty_cache()  # another process may train the next trial
    return Ended(rows, weights, failure)


def difference(was: Ended, now: Ended) -> str:
    """Describe the first difference between two runs of a trial, or that one failed; empty if they are equal."""
    for row, other in zip(was.rows, now.rows, strict=False):
        for figure, a, b in differences(row, other):
            return f"epoch {row['epoch']}, {figure}: was {a!r}, then {b!r}"
    if was.error != now.error:
        return f"one run failed: {was.error or now.error}"
    return "" if was.weights == now.weights else f"weights: was {was.weights}, then {now.weights}"


def trained_twice(config: TrialConfig, clips: Path, device: torch.device) -> tuple[Ended, str]:
    """Train twice; return how the trial ended and what is wrong, with the operators; empty if every bit repeated."""
    first = trained(config, clips, device)
    problem = first.error or difference(first, trained(config, clips, device))
    if problem:
        operators = find_operators(lambda: trained(config, clips, device))
        # If torch refuses operators, the trial's error only repeats the first of them at length.
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
            theirs.close()  # otherwise the process's end would go unnoticed
            self._workers.append((process, ours))
        for _, work in self._workers:
            work.recv()  # wait until it is ready, so that both begin together

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
        """Return how the trial ended in each of the two processes; one entry with an error if a process died."""
        try:
            for _, work in self._workers:
                work.send((config, clips, device))
            return [work.recv() for _, work in self._workers]
        except (EOFError, OSError):
            self._stop()
            self._start()
            return [Ended([], "", "its process died (killed, or out of memory)")]


def _serve(work: Connection) -> None:
    with suppress(EOFError, KeyboardInterrupt):  # the parent has ended
        work.send("here")
        while True:
            work.send(trained(*work.recv()))
