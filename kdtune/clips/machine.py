"""Describe this machine without torch: processor, cores, GPUs, memory and disk; format bytes for people."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

GIB = 2**30


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Return the processor's name, family and model, as a trial's profile records them."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(
            line.split(":", 1)
            for line in info.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
            if ":" in line
        )
        named = {name.strip(): value.strip() for name, value in fields.items()}
        parts = [named.get(name, "") for name in ("model name", "cpu family", "model")]
        if any(parts):
            return " ".join(part for part in parts if part)
    return platform.processor() or platform.machine()


def gpus() -> int:
    """Return the number of NVIDIA GPUs that the Linux driver lists; 0 on other systems."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def memory_bytes() -> int:
    """Return the machine's memory in bytes, or its control group's limit where that is lower."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            memory = min(memory, int(Path(limit).read_text(encoding="utf-8")))
        except (OSError, ValueError):  # no limit, or "max"
            continue
    return memory


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that holds, or will hold, `folder`."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def amount(size: float) -> str:
    """Format `size` bytes for people: "12.3 GiB", "4.2 MiB"."""
    return f"{size / GIB:.1f} GiB" if size >= 0.1 * GIB else f"{size / 2**20:.1f} MiB"
