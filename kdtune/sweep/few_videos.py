"""Warn of settings that need more videos than a data set has, and say which `--set` mends each.

Warnings never refuse: the figures are right, but say less than they seem to.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from kdtune.clips.catalog import load_catalog
from kdtune.clips.frames.store import usable
from kdtune.config.inherit import RawConfig
from kdtune.config.sections import DataConfig
from kdtune.config.space import KINDS, Scalar, resolve, set_path
from kdtune.config.sweep import Block, SweepConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import DataError
from kdtune.sweep.shortages import Mend, Videos, shortages
from kdtune.train.prepared import Prepared, source_id

#: Paths, or beginnings of paths, of settings that a check looks at.
CHECKED = (
    "data.",
    "loss.contrast",
    "loss.negatives",
    "loss.alpha",
    "optimizer.batch",
    "evaluation.neighbors",
    "teacher",
)


@dataclass(frozen=True)
class DataWarning:
    """What was seen, why it matters, and the changes that mend it."""

    seen: str
    why: str
    changes: Mapping[str, Any]
    """Key of a `--set` → its value. Empty where only more videos help."""

    @property
    def remedy(self) -> str:
        """What mends it, in words: the options as a shell takes them."""
        options = (f"--set {shlex.quote(f'{key}={_text(value)}')}" for key, value in self.changes.items())
        return f"mend it with {' '.join(options)}" if self.changes else "no setting mends it, only more videos do"

    def apply(self, raw: RawConfig) -> None:
        """Make the changes in a sweep, as a file holds it."""
        for key, value in self.changes.items():
            set_path(raw, key if key.split(".")[0] in SweepConfig.model_fields else f"trial.{key}", value)

    def __str__(self) -> str:
        return f"{self.seen}: {self.why}; {self.remedy}"


def data_warnings(sweep: SweepConfig, prepared: Prepared) -> list[DataWarning]:
    """Return the warnings on a sweep's trials, each once, for the trial with the fewest videos.

    Counts the usable videos of prepared data sets, else all videos that the folder or its lists name. Data sets that
    cannot be read give no warning: the sweep refuses them.
    """
    catalogs = dict[tuple[str, int], pd.DataFrame | None]()
    counted = dict[tuple[str, int, DataConfig], Videos]()
    worst = dict[tuple[str, ...], tuple[int, DataWarning]]()
    for part in _parts(sweep):
        data, source = part.config.data, (source_id(part.config.data, part.config.clip), part.config.frames_needed)
        if source not in catalogs:
            catalogs[source] = _rows(part.config, prepared)
        if (rows := catalogs[source]) is None:
            continue
        videos = counted.get((*source, data)) or counted.setdefault((*source, data), Videos.of(data, rows))
        for shortage in shortages(part.config, videos, len(sweep.search.every_seed), compared=not part.teacher):
            paths = tuple(part.path(sweep, mend.path) for mend in shortage.mends)
            changes = {path: _changed(sweep, path, mend) for path, mend in zip(paths, shortage.mends, strict=True)}
            found = videos.training + videos.validation, DataWarning(shortage.seen, shortage.why, changes)
            worst[paths] = min(worst.get(paths, found), found, key=lambda each: each[0])
    return [warning for _, warning in worst.values()]


@dataclass(frozen=True)
class _Part:
    """A trial of the sweep, or its fine-tuning."""

    config: TrialConfig
    teacher: str = ""
    """The teacher's name; empty for a student."""
    finetuning: bool = False

    def path(self, sweep: SweepConfig, path: str) -> str:
        """Return the place in the sweep file that sets `path` for this trial."""
        if path.startswith("search."):
            return path
        own = sweep.trial.finetune
        if self.finetuning and own is not None and (path.startswith("optimizer.") or own.data is not None):
            path = f"finetune.{path}"
        if self.teacher:
            entry = sweep.teachers[self.teacher].model_dump(by_alias=True, exclude_unset=True)
            if _holds(entry, path):
                return f"teachers.{self.teacher}.{path}"
            if not sweep.follows(self.teacher, path):
                return path
        for section in ("blocks", "space"):
            for name in getattr(sweep.search, section):
                if resolve(name) == path:
                    return f"search.{section}.{name}"
        return "search.controls" if any(path in map(resolve, control) for control in sweep.search.controls) else path


def _parts(sweep: SweepConfig) -> Iterator[_Part]:
    """Yield trials that cover every combination of a block and a value that a check looks at."""
    for block in sweep.blocks():
        checked = {
            name: parameter
            for name, parameter in sweep.space(block).items()
            if resolve(name).removeprefix("finetune.").startswith(CHECKED)
        }
        first = {name: parameter.extremes[0] for name, parameter in checked.items() if parameter.when is None}
        variants: list[dict[str, Scalar]] = [first, *({**first, **control} for control in sweep.search.controls)]
        variants += [{**first, name: value} for name, parameter in checked.items() for value in parameter.extremes]
        for values in variants:
            with suppress(ValidationError):  # such a candidate fails when it is asked
                config = sweep.build(block, values, sweep.search.first_seeds[0])
                yield _Part(config)
                if (finetuned := config.finetuned) is not None:
                    yield _Part(finetuned, finetuning=True)
                yield from _teachers(sweep, block, values)


def _teachers(sweep: SweepConfig, block: Block, values: dict[str, Scalar]) -> Iterator[_Part]:
    for name, value in {**block.values, **values}.items():
        if resolve(name) == "teacher" and value not in (None, "none"):
            for link in sweep.chain(str(value)):
                config = sweep.teacher(link, block, values)
                if config.imported is None:
                    yield _Part(config, teacher=link)


def _rows(config: TrialConfig, prepared: Prepared) -> pd.DataFrame | None:
    """Return the catalog of a trial's usable videos; None where they cannot be read."""
    try:
        if source_id(config.data, config.clip) in prepared.folders:
            return usable(prepared.clips(config), config.frames_needed)
        return load_catalog(config.data) if Path(config.data.folder).is_dir() else None
    except DataError:
        return None


def _changed(sweep: SweepConfig, place: str, mend: Mend) -> Any:
    """Return the value at `place` that mends a setting, keeping the values there that fit."""
    if place.startswith("search.blocks."):
        return [v for v in sweep.search.blocks[place.removeprefix("search.blocks.")] if mend.fits(v)] or [mend.value]
    if place.startswith("search.space."):
        parameter = sweep.search.space[place.removeprefix("search.space.")]
        if parameter.bounds is None:
            return [v for v in parameter.choice or [] if mend.fits(v)] or [mend.value]
        low, high = parameter.bounds
        bounds = [low, mend.value] if mend.fits(low) else [mend.value, high]
        kind = next(kind for kind in KINDS if getattr(parameter, kind) is not None)
        return {kind: bounds} if bounds[0] < bounds[1] else [mend.value]
    if place == "search.controls":
        return [
            {name: mend.value if resolve(name) == mend.path else value for name, value in control.items()}
            for control in sweep.search.controls
        ]
    return mend.value


def _text(value: Any) -> str:
    """Return a value as YAML."""
    return value if isinstance(value, str) else json.dumps(value)


def _holds(entry: dict[str, Any], path: str) -> bool:
    inside: Any = entry
    for part in path.split("."):
        if not isinstance(inside, dict) or part not in inside:
            return False
        inside = inside[part]
    return True
