"""What this machine has: cores, memory, disk; and bytes as people read them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

GIB = 2**30


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Of this machine, or what its control group may use where that is less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            memory = min(memory, int(Path(limit).read_text()))
        except (OSError, ValueError):  # none, or "max"
            continue
    return memory


def free_bytes(folder: Path) -> int:
    """Of the disk on which `folder` is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def amount(size: float) -> str:
    """Bytes as people read them: 12.3 GiB, 4.2 MiB."""
    return f"{size / GIB:.1f} GiB" if size >= 0.1 * GIB else f"{size / 2**20:.1f} MiB"
