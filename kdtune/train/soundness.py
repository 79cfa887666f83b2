"""Read a trial's records and check them: its rows hold each epoch once, and its result agrees with them.

Unreadable or contradictory records raise DamageError; `Session.trial` then makes them again. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdtune.config.metrics import PER_VIDEO, outcomes
from kdtune.errors import DamageError
from kdtune.store import TrialFiles
from kdtune.store.contents import EpochRecord, ResultRecord


def read_result(files: TrialFiles) -> ResultRecord | None:
    """Return the result of a trial, or None if the trial is not complete.

    Raises DamageError if the file is damaged, and StoreError if it cannot be read.
    """
    result = files.result()
    if result is None:
        return None
    entries: Mapping[str, object] = result
    wanted = {"epochs": int, "stages": Mapping, "weights_sha256": str}
    if wrong := [name for name, kind in wanted.items() if not isinstance(entries[name], kind)]:
        raise DamageError.at(files.result_file, f"holds {', '.join(wrong)} of a wrong type")
    return result


def read_rows(files: TrialFiles) -> list[EpochRecord]:
    """Return the rows of a trial: epochs 1, 2, …, once each.

    Raises DamageError naming the epochs that are missing or repeated, and StoreError if the file cannot be read.
    """
    rows = files.rows()
    if not all(isinstance(row["epoch"], int) for row in rows):
        raise DamageError.at(files.epochs, "holds a line that is not an epoch's row")
    if wrong := missing([row["epoch"] for row in rows]):
        raise DamageError.at(files.epochs, wrong)
    return rows


def complete_rows(files: TrialFiles) -> list[EpochRecord] | None:
    """Return the rows of a complete trial after comparing them with its result; None if it is not complete.

    Raises DamageError if a record is damaged or the two disagree.
    """
    result = read_result(files)
    if result is None:
        return None
    rows, path = read_rows(files), str(files.epochs)
    if len(rows) != result["epochs"]:
        epochs = [row["epoch"] for row in rows]
        raise DamageError.at(path, missing(epochs, result["epochs"]))
    stages = {row["stage"]: row.get("evaluation") for row in rows if "stage" in row}
    if wrong := [name for name in {**result["stages"], **stages} if stages.get(name) != result["stages"].get(name)]:
        raise DamageError.at(path, f"does not hold what result.json says of stage {', '.join(wrong)}")
    last = rows[-1].get("weights_sha256", result["weights_sha256"]) if rows else result["weights_sha256"]
    if last != result["weights_sha256"]:
        what = f"names the weights {last[:12]}… at the end, result.json {result['weights_sha256'][:12]}…"
        raise DamageError.at(path, what)
    return rows


def per_video(files: TrialFiles, row: EpochRecord, split: str, metric: str) -> str | None:
    """Return the outcomes of a row of `files` (config.metrics.PER_VIDEO), one digit per video; None if it has none.

    Raises DamageError if they are not those whose mean the row's evaluation reports.
    """
    text, reported = (_figure(row, kind, split, metric) for kind in ("per_video", "evaluation"))
    if text is None:
        return None
    try:
        found = sum(map(int, text)) / (PER_VIDEO[metric] * len(outcomes(metric, text)))
    except (TypeError, ValueError, KeyError, ZeroDivisionError):
        found = None
    if found is None or found != reported:
        what = f"reports {metric} {reported} on {split} in epoch {row['epoch']}, but its videos' outcomes give {found}"
        raise DamageError.at(files.epochs, what)
    return str(text)


def _figure(record: Any, *path: str) -> Any:
    """Return the entry of nested mappings at `path`; None if there is none, an empty string if a part is no mapping."""
    for name in path:
        if record is None:
            return None
        if not isinstance(record, Mapping):
            return ""
        record = record.get(name)
    return record


def missing(epochs: Sequence[int], until: int | None = None) -> str:
    """Describe which of the epochs 1 to `until` are missing, extra or repeated; empty if none is.

    `until` defaults to the last of `epochs`.
    """
    known = set(epochs)
    last = max([*known, 0]) if until is None else until
    lacking = [epoch for epoch in range(1, last + 1) if epoch not in known]
    further = sorted(epoch for epoch in known if not 1 <= epoch <= last)
    twice = sorted(epoch for epoch in known if epochs.count(epoch) > 1)
    found = [f"lacks epoch {ranges(lacking)}"] if lacking else []
    found += [f"holds epoch {ranges(further)}, which the trial does not have"] if further else []
    found += [f"holds epoch {ranges(twice)} more than once"] if twice else []
    if not found and list(epochs) != sorted(epochs):
        found.append("holds its epochs out of order")
    return ", and ".join(found)


def ranges(numbers: Sequence[int]) -> str:
    """Format ascending numbers as ranges: [1, 2, 3, 7] → "1 to 3, 7"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join(" to ".join(map(str, part)) for part in parts)


def not_finite(record: Any, path: str = "") -> Iterator[str]:
    """Yield the path, such as `evaluation.test.knn`, of every number in `record` that is not finite."""
    if isinstance(record, Mapping):
        for name, value in record.items():
            yield from not_finite(value, f"{path}.{name}" if path else str(name))
    elif isinstance(record, list | tuple):
        for place, value in enumerate(record):
            yield from not_finite(value, f"{path}[{place}]")
    elif isinstance(record, float) and not math.isfinite(record):
        yield path
