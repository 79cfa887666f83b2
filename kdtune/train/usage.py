"""How busy a trial's machine is, epoch by epoch: MLflow's system metrics. No figure of a trial depends on them.

Names are those of mlflow/system_metrics, which has none for a single process; there the shares are of one core.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psutil
import torch

from kdtune.files import append_jsonl
from kdtune.store import TrialFiles

#: Bytes in a megabyte, as MLflow counts.
MEGABYTE = 1e6


class UsageMeter:
    """Of this process and its machine. Shares of time are means since the last reading, but for the GPU's, which its
    driver measures over the last moments."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._process = psutil.Process()
        self._began = time.time()
        self.read()

    def note(self, files: TrialFiles, row: Mapping[str, Any]) -> None:
        """Add a line on the epoch that has just ended with `row`. One that ended before this meter began has none."""
        if row["at"] < self._began:
            return
        with suppress(OSError):  # a full disk is the trainer's to tell
            append_jsonl(files.machine, {"epoch": row["epoch"], "at": time.time(), **self.read()}, sync=False)

    def read(self) -> dict[str, float]:
        """Name → value, as in `cpu_utilization_percentage`."""
        memory = psutil.virtual_memory()
        figures = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / MEGABYTE,
            "system_memory_usage_percentage": 100 * memory.used / memory.total,
            "process_cpu_utilization_percentage": self._process.cpu_percent(),
            "process_memory_usage_megabytes": self._process.memory_info().rss / MEGABYTE,
        }
        return {name: round(value, 1) for name, value in {**figures, **self._gpu()}.items()}

    def _gpu(self) -> dict[str, float]:
        """Of the trial's GPU, which is its number 0 whatever the machine calls it; nothing without one."""
        if self.device.type != "cuda":
            return {}
        free, total = torch.cuda.mem_get_info(self.device)
        figures = {
            "gpu_0_memory_usage_megabytes": (total - free) / MEGABYTE,
            "gpu_0_memory_usage_percentage": 100 * (total - free) / total,
        }
        with suppress(Exception):  # it needs nvidia-ml-py, and a driver that tells (a part of a GPU has no figure)
            figures["gpu_0_utilization_percentage"] = torch.cuda.utilization(self.device)
            figures["gpu_0_power_usage_watts"] = torch.cuda.power_draw(self.device) / 1000
        return figures
