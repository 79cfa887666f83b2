"""Shared by both sides of benchmarks/scale.py: what trials report, and how a side is measured."""

from __future__ import annotations

import math
import resource
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

EPOCHS, STAGES = 3, {"early": 1, "late": 3}
#: Finished trials that a sampler needs before it learns, on both sides.
STARTUP = 4
#: Search space of both sides: name → bounds, and whether it is logarithmic.
SPACE = {"alpha": (0.1, 1.0, False), "optimizer.lr": (1e-3, 1e-1, True), "optimizer.weight_decay": (1e-6, 1e-2, True)}


def accuracy(values: Mapping[str, float], epoch: int) -> float:
    """Return a score between 0 and 1 that grows with the epoch and is best in the middle of the space."""
    off = 0.0
    for name, (low, high, log) in SPACE.items():
        value, ends = values[name], (low, high)
        if log:
            value, ends = math.log(value), (math.log(low), math.log(high))
        off += ((value - ends[0]) / (ends[1] - ends[0]) - 0.5) ** 2
    return (1 - off) * (0.5 + 0.5 * epoch / EPOCHS)


class Meter:
    """This process's costs, recorded at every trial's end."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.ends: list[list[float]] = []
        """For each trial: seconds since the start, and the process's CPU seconds and resident MiB at that time."""
        self.parts: dict[str, list[list[float]]] = defaultdict(list)
        """Name → for each call: seconds, and CPU seconds of its thread."""

    def note_end(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        mib = pages * resource.getpagesize() / 2**20
        self.ends.append([time.perf_counter() - self._began, time.process_time(), mib])

    def measure(self, part: str, owner: Any, name: str) -> None:
        """Start measuring the calls of `owner.name`."""
        function: Callable[..., Any] = getattr(owner, name)

        @wraps(function)
        def measured(*args: Any, **named: Any) -> Any:
            seconds, cpu = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **named)
            finally:
                self.parts[part].append([time.perf_counter() - seconds, time.thread_time() - cpu])

        setattr(owner, name, measured)

    def figures(self) -> dict[str, Any]:
        """Return all measurements, at the end."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        end = [time.perf_counter() - self._began, time.process_time(), peak]
        return {"ends": self.ends, "end": end, "parts": self.parts, "threads": threading.active_count()}
