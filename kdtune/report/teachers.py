"""Tables of teachers: those of a sweep with their own accuracies, and `teacher list`, all that a store has.

Without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from kdtune.config.key import TRAINER_SEMANTICS
from kdtune.errors import DamageError, Problem
from kdtune.history.metric import MetricSpec, Split
from kdtune.history.trials import TrialRecord
from kdtune.parse import JsonObject
from kdtune.store import StoreFiles, TrialFiles
from kdtune.store.seal import REMEDY, note_damage
from kdtune.tables import Cell, Column, Table, number
from kdtune.tables.terminal import text_for

#: Accuracies that are shown if a trial has them.
ACCURACIES = ("pretext", "knn", "top1")
#: Digits of a key in the table, enough to distinguish trials.
SHORT = 12


def teachers_table(teachers: Sequence[TrialRecord]) -> Table | None:
    """Return the teachers of a sweep with their own accuracies at their last stage; None without teachers."""
    specs = [MetricSpec(name, split, "", "max", name) for split in get_args(Split) for name in ACCURACIES]
    last = [next(reversed(list(trial.stages)), "") for trial in teachers]
    found = [[trial.figure(m.at(stage=stage)) for m in specs] for trial, stage in zip(teachers, last, strict=True)]
    shown = [i for i in range(len(specs)) if any(values[i] is not None for values in found)]
    rows = []
    for trial, values in zip(teachers, found, strict=True):
        cells = [Cell(trial.group.name.removeprefix("teacher ")), Cell(str(trial.params.get("student") or "–"))]
        cells += [Cell(str(trial.epochs), trial.epochs), *(Cell(specs[i].text(values[i]), values[i]) for i in shown)]
        rows.append([*cells, Cell(trial.state + (f": {trial.error}" if trial.error else ""))])
    columns = [Column("teacher"), Column("network"), number("epochs")]
    columns += [number(f"{specs[i].name.removesuffix(' accuracy')} on {specs[i].split}") for i in shown]
    title = "Teachers' own accuracies at the end of their training"
    keys = [[trial.key] for trial in teachers]
    return Table([*columns, Column("state")], rows, title, name="teachers", keys=keys) if rows else None


def teacher_rows(store: StoreFiles) -> list[JsonObject]:
    """Return one row for each complete trial that this version can look up, by target, network and key.

    A trial whose records are damaged or have another form is left out, and a note names it.
    """
    rows = []
    for files in store.trials():
        try:
            row = _row(files)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            note_damage(
                DamageError([Problem(str(files.folder), f"holds no trial's config.json and result.json; {REMEDY}")])
            )
        else:
            rows += [row] if row is not None else []
    return sorted(rows, key=lambda row: (row["target"], row["network"], row["key"]))


def _row(files: TrialFiles) -> JsonObject | None:
    """Return a trial's row, or None if it is not complete or another version trained it."""
    form, result = files.identity(), files.sound_result()
    if form is None or result is None:
        return None
    imported = "imported" in form
    if not imported and form["semantics"] != TRAINER_SEMANTICS:
        return None  # no key of this version leads here
    trial = {} if imported else form["trial"]
    clip, student = (form if imported else trial)["clip"], (form if imported else trial)["student"]
    last = list(result["stages"].values())[-1]["validation"] if result["stages"] else {}
    row = {
        "key": files.key,
        "network": network_label(student),
        "target": form["target"] if imported else trial["loss"]["target"],
        "frames": clip["frames"],
        "size": clip["size"],
        "dataset": None if imported else trial["data"]["dataset"],
        "fraction": None if imported else trial["data"]["fraction"],
        "epochs": result["epochs"],
    }
    for metric in ACCURACIES:
        row |= {metric: last.get(metric), f"best_{metric}": last.get(f"best_{metric}")}
    row["source"] = f"imported: {result['imported']['source']}" if imported else "trained"
    row["heads"] = result["imported"]["heads"] if imported else ["head"]
    row |= {name: None if imported else form[name] for name in ("teacher", "start")}
    return row


def network_label(student: JsonObject) -> str:
    """Return the name of a canonical student, as in `r3d-10 w64`."""
    depth = f"-{student['depth']}" if "depth" in student else ""
    width = f" w{student['width']}" if "width" in student else ""
    return f"{student['backbone']}{depth}{width}"


def teacher_table(rows: list[JsonObject], width: int | None = None) -> str:
    """Return `rows` of teacher_rows as text: accuracies at the last stage and the best before it if that was better.

    Lines have at most `width` characters if that is given.
    """
    if not rows:
        return "no trial in the store is complete yet"
    shown = [metric for metric in ACCURACIES if any(row[metric] is not None for row in rows)]
    chains = [name for name in ("teacher", "start") if any(row[name] for row in rows)]
    heads = ["key", "network", "target", "clip", "data", "epochs", *shown, "source", *chains]
    lines = []
    for row in rows:
        line = [row["key"][:SHORT], row["network"], row["target"], f"{row['frames']} × {row['size']}²"]
        line += ["–" if row["dataset"] is None else f"{row['dataset']} {row['fraction']:g}", str(row["epochs"])]
        line += [_accuracy(row[metric], row[f"best_{metric}"]) for metric in shown]
        line += [row["source"] + ("" if "head" in row["heads"] else " (backbone only)")]
        line += [row[name][:SHORT] if row[name] else "–" for name in chains]
        lines.append(line)
    return text_for(Table.of(heads, lines), width)


def _accuracy(last: float | None, best: float | None) -> str:
    if last is None:
        return "–"
    return f"{last:.3f}" + (f" (best {best:.3f})" if best is not None and best > last else "")
