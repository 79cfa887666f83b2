"""Measure a trial's machine, epoch by epoch, as MLflow's system metrics. No figure of a trial depends on them.

Metrics that cannot be measured or written are left out. The names are MLflow's (mlflow/system_metrics). It has none for
a single process; the process's CPU percentage is of one core.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psutil
import torch

from kdtune.store import TrialFiles
from kdtune.store.files import append_jsonl

#: Bytes in a megabyte, as MLflow counts.
MEGABYTE = 1e6


class UsageMeter:
    """Measures this process and its machine. Percentages of time are means since the last reading; only the GPU's is
    its driver's recent sample."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._began = time.time()
        self._process: psutil.Process | None = None
        with suppress(Exception):  # the system may refuse to tell
            self._process = psutil.Process()
            self.read()

    def note(self, files: TrialFiles, row: Mapping[str, Any]) -> None:
        """Append a line for the epoch that just ended with `row`; none for one that ended before this meter began."""
        if row["at"] < self._began:
            return
        with suppress(Exception):  # the trainer reports a full disk, and no one misses a figure
            append_jsonl(files.machine, {"epoch": row["epoch"], "at": time.time(), **self.read()}, sync=False)

    def read(self) -> dict[str, float]:
        """Return name (such as `cpu_utilization_percentage`) → value for everything that can be measured."""
        figures: dict[str, float] = {}
        for measure in (self._machine, self._own, self._gpu):
            with suppress(Exception):  # systems refuse different metrics
                figures |= measure()
        return {name: round(value, 1) for name, value in figures.items()}

    def _machine(self) -> dict[str, float]:
        memory = psutil.virtual_memory()
        return {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / MEGABYTE,
            "system_memory_usage_percentage": 100 * memory.used / memory.total,
        }

    def _own(self) -> dict[str, float]:
        if self._process is None:
            return {}
        return {
            "process_cpu_utilization_percentage": self._process.cpu_percent(),
            "process_memory_usage_megabytes": self._process.memory_info().rss / MEGABYTE,
        }

    def _gpu(self) -> dict[str, float]:
        """Measure the trial's GPU, which the trial sees as number 0; empty without one."""
        if self.device.type != "cuda":
            return {}
        free, total = torch.cuda.mem_get_info(self.device)
        figures = {
            "gpu_0_memory_usage_megabytes": (total - free) / MEGABYTE,
            "gpu_0_memory_usage_percentage": 100 * (total - free) / total,
        }
        with suppress(Exception):  # needs nvidia-ml-py and a driver that tells (a MIG slice has no figure)
            figures["gpu_0_utilization_percentage"] = torch.cuda.utilization(self.device)
            figures["gpu_0_power_usage_watts"] = torch.cuda.power_draw(self.device) / 1000
        return figures
