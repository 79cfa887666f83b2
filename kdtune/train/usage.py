"""How busy a trial's machine is, epoch by epoch: MLflow's system metrics. No figure of a trial depends on them.

What cannot be measured, or written, is left out.

Names are those of mlflow/system_metrics, which has none for a single process; there the shares are of one core.
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
    """Of this process and its machine. Shares of time are means since the last reading, but for the GPU's, which its
    driver measures over the last moments."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._began = time.time()
        self._process: psutil.Process | None = None
        with suppress(Exception):  # a system that does not tell
            self._process = psutil.Process()
            self.read()

    def note(self, files: TrialFiles, row: Mapping[str, Any]) -> None:
        """Add a line on the epoch that has just ended with `row`. One that ended before this meter began has none."""
        if row["at"] < self._began:
            return
        with suppress(Exception):  # a full disk is the trainer's to tell, and a missing figure nobody's
            append_jsonl(files.machine, {"epoch": row["epoch"], "at": time.time(), **self.read()}, sync=False)

    def read(self) -> dict[str, float]:
        """Name → value, as in `cpu_utilization_percentage`, of all that can be measured."""
        figures: dict[str, float] = {}
        for measure in (self._machine, self._own, self._gpu):
            with suppress(Exception):  # each system refuses something else
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
