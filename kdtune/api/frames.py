"""The DataFrames of a sweep: its trials, epochs, gains and Pareto sets, with the same columns whatever was run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from kdtune.history.sweep import SweepHistory
from kdtune.history.trials import TrialRecord
from kdtune.history.videos import Videos
from kdtune.parse import JsonObject
from kdtune.store import StoreFiles

#: What tells a trial apart, first in every frame of trials and epochs.
IDENTITY = {"key": "string", "block": "string", "candidate": "Int64", "control": "bool", "seed": "int64"}
#: The columns of `trials` that every sweep has, with their dtypes; between the two groups stand those of the sweep.
FIRST = {**IDENTITY, "state": "string", "epochs": "int64", "seconds": "float64", "objective": "float64"}
LAST = {"weights_sha256": "string", "finetuned": "string", "error": "string"}
EPOCHS = {**IDENTITY, "finetuning": "bool", "epoch": "int64"}
GAINS = {
    **{"block": "string", "candidate": "int64", "gain": "float64", "low": "float64", "high": "float64"},
    **{"verdict": "string", "basis": "string", "seeds": "int64", "videos": "Int64", "unit": "string"},
}


def trials_frame(history: SweepHistory, records: Iterable[TrialRecord], refits: Iterable[TrialRecord]) -> pd.DataFrame:
    """Return the frame of `Sweep.trials`; with `refits` and their column where there are any."""
    names = [metric.column for metric in history.objectives]
    raced = history.record.race is not None
    rows = [_row(record, names) | ({"dropped": record.group.dropped} if raced else {}) for record in records]
    again = [{**_row(record, names), "refit": True} for record in refits]
    if again:
        rows = [{**row, "refit": False} for row in rows] + again
    frame = pd.DataFrame(rows, columns=None if rows else [*FIRST, *LAST])
    own = [name for name in frame.columns if name not in LAST]
    return frame[[*own, *LAST]].astype({**FIRST, **LAST, **({"dropped": "Int64"} if raced and rows else {})})


def epochs_frame(store: StoreFiles, records: Iterable[TrialRecord]) -> pd.DataFrame:
    """Return the frame of `Sweep.epochs`."""
    rows: list[JsonObject] = []
    for record in records:
        own = {name: value for name, value in _row(record, ()).items() if name in IDENTITY}
        for row in store.trial(record.key).sound_rows():
            if row["epoch"] <= record.epochs:  # another sweep may have trained it further
                rows.append({**own, "finetuning": False, **row})
        if record.finetuned is not None:
            rows += [{**own, "finetuning": True, **row} for row in store.trial(record.finetuned).sound_rows()]
    frame = pd.json_normalize(rows, sep="/") if rows else pd.DataFrame(columns=list(EPOCHS))
    return frame.astype({**EPOCHS, **({"stage": "string"} if "stage" in frame else {})})


def gains_frame(history: SweepHistory, blocks: Sequence[str], videos: Videos) -> pd.DataFrame:
    """Return the frame of `Sweep.gains`; `videos` is block → split → how many are evaluated, where that is known."""
    metric, rows = history.metric, []
    for block in blocks:
        gains = history.gains(block, videos.get(block, {}).get(metric.split))
        for number, gain in sorted(gains.items(), key=lambda item: (-item[1].mean, item[0])):
            ends = {"low": gain.low, "high": gain.high, "verdict": gain.verdict, "basis": gain.basis}
            row = {"block": block, "candidate": number, "gain": gain.mean, **ends}
            rows.append({**row, "seeds": len(gain.differences), "videos": gain.videos, "unit": metric.unit})
    return pd.DataFrame(rows, columns=list(GAINS)).astype(GAINS)


def pareto_frame(history: SweepHistory, blocks: Sequence[str]) -> pd.DataFrame:
    """Return the frame of `Sweep.pareto`."""
    names = [metric.column for metric in history.objectives]
    rows = []
    for block in blocks:
        for group in history.best(block):
            figures = {name: group.objective(place) for place, name in enumerate(names)}
            params = {f"params/{name}": value for name, value in group.params.items()}
            rows.append({"block": block, "candidate": group.number, **figures, **params})
    frame = pd.DataFrame(rows, columns=None if rows else ["block", "candidate", *names])
    return frame.astype({"block": "string", "candidate": "int64", **dict.fromkeys(names, "float64")})


def _row(record: TrialRecord, objectives: Sequence[str]) -> JsonObject:
    several = dict(zip((f"objective/{name}" for name in objectives), record.values, strict=False))
    return {
        "key": record.key,
        "block": record.block,
        "candidate": record.candidate,
        "control": record.is_control,
        "seed": record.seed,
        "state": record.state,
        "epochs": record.epochs,
        "seconds": record.seconds,
        "objective": record.objective,
        **(several if len(objectives) > 1 else {}),
        **{f"params/{name}": value for name, value in record.params.items()},
        **dict(_figures(record)),
        **{f"cost/{name}": value for name, value in (record.cost or {}).items()},
        "weights_sha256": record.weights_sha256,
        "finetuned": record.finetuned,
        "error": record.error,
    }


def _figures(record: TrialRecord) -> Iterator[tuple[str, float]]:
    for stage, splits in record.stages.items():
        for split, figures in splits.items():
            for name, value in figures.items():
                yield f"{stage}/{split}/{name}", value
