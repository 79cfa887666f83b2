"""Shared by the tests of `plan`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdtune.config.sweep import SweepConfig
from kdtune.store import StoreFiles
from kdtune.train.session import Session


def knowing(prepared: Session, root: Path) -> StoreFiles:
    """Return a store that knows only the tiny data set."""
    for part in ("clips", "manifests"):
        shutil.copytree(prepared.store.root / part, root / part)
    return StoreFiles(root)


def sweep_with(form: dict[str, Any], **sections: Any) -> SweepConfig:
    return SweepConfig.model_validate({**form, "prune": {}, **sections})


def last_lines(said: Iterator[str] | list[str]) -> list[str]:
    lines = list(said)
    return lines[next(i for i, line in enumerate(lines) if line.startswith("in the store")) :]
