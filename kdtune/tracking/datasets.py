"""Describe a trial's videos as MLflow data sets: pure functions of the trial's records, without mlflow."""

from __future__ import annotations

import json
from dataclasses import dataclass

from kdtune.config.key import digest
from kdtune.parse import JsonObject
from kdtune.store import TrialFiles
from kdtune.store.files import read_json
from kdtune.store.seal import passed_over

#: Columns of the table that MLflow's pages show.
SCHEMA = {"mlflow_colspec": [{"type": "string", "name": name, "required": True} for name in ("video", "action")]}
#: Part → the fields of a trial's `data` that, with the manifest, decide which videos it holds.
CHOSEN_BY = {
    "training": ("split", "subset_seed", "validation", "fraction"),
    "validation": ("split", "subset_seed", "validation"),
    "test": ("split",),
}


@dataclass(frozen=True)
class DataInput:
    """A part of a data set in MLflow's form: everything is text."""

    context: str
    """training | validation | test"""
    name: str
    digest: str
    """Digest of the manifest in the trial's key and of the fields that chose the part's videos (MLflow: at most 36
    characters)."""
    source: str
    """JSON: the folder of the videos."""
    schema: str
    """JSON: the columns of a row."""
    profile: str
    """JSON: numbers of videos and classes, the manifest, and the fields that chose the videos."""


def data_inputs(files: TrialFiles) -> list[DataInput]:
    """Return the parts of the trial's data set; none if its records do not name the set."""
    identity = files.identity() or {}
    data, manifest = identity.get("trial", {}).get("data"), identity.get("data")
    if data is None or manifest is None:
        return []
    record: JsonObject = passed_over(lambda: read_json(files.data) or {}, {})
    # Videos too short for a sample are left out, so the part also depends on the clips.
    shortest = {"clip": identity["trial"]["clip"], "target": identity["trial"]["loss"]["target"]}
    found = []
    for context, names in CHOSEN_BY.items():
        chosen = {name: data[name] for name in names if name in data}
        profile: JsonObject = {**chosen, "manifest": manifest}
        if record:
            profile = {"num_rows": record["videos"][context], "classes": len(record["actions"]), **profile}
        found.append(
            DataInput(
                context,
                data["dataset"],
                digest({"manifest": manifest, "part": context, **chosen, **shortest}),
                json.dumps({"uri": record.get("folder", data["dataset"])}),
                json.dumps(SCHEMA),
                json.dumps(profile),
            )
        )
    return found
