"""Shared by the benchmarks: the machine's profile, ratios, tables, JSON, options, commands.

A ratio always compares two turns of one round, taken one after the other on the same machine. Printed are the median
over the rounds and, in brackets, the quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from kdtune.clips.machine import cores
from kdtune.config.trial import TrialConfig
from kdtune.train.profile import profile

ROOT = Path(__file__).resolve().parents[1]


def machine(config: TrialConfig, device: str) -> dict[str, Any]:
    """Return the part of a trial's profile that describes the machine."""
    found = profile(config, torch.device(device), SimpleNamespace(digest=None))
    return {name: value for name, value in found.items() if name not in ("frames", "precision")}


def this_machine(config: TrialConfig) -> dict[str, Any]:
    """Return the machine's profile on the CPU, with the number of cores."""
    return {**machine(config, "cpu"), "cores": cores()}


def machine_line(found: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in found.items() if value is not None)


def ratios(own: Sequence[float], other: Sequence[float]) -> list[float]:
    """Return own ÷ other, round by round."""
    return [a / b for a, b in zip(own, other, strict=True)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Format values as in 1.08 (1.05–1.12): the median and, where there are several values, the quartiles."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Format a table as Markdown."""
    print(f"\n| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")


def write_json(path: Path | None, content: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parser(doc: str | None, out: str = "also write every figure to this file, as JSON") -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--out", type=Path, help=out)
    return made


def command(arguments: Sequence[str], env: dict[str, str] | None = None) -> tuple[float, str]:
    """Run a command in the repository's root. Return its seconds and output; exit if it fails."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(env or {})}
    started = time.perf_counter()
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}")
    return seconds, done.stdout
