"""The videos of a trial as MLflow's data sets: pure functions of the trial's records, without mlflow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from kdtune.config.key import digest
from kdtune.store import TrialFiles
from kdtune.store.files import read_json
from kdtune.store.seal import passed_over

#: Of a row of the table that MLflow's pages show.
SCHEMA = {"mlflow_colspec": [{"type": "string", "name": name, "required": True} for name in ("video", "action")]}
#: What of a trial's `data` decides which videos a part holds, beside the manifest of the set.
CHOSEN_BY = {
    "training": ("split", "subset_seed", "validation", "fraction"),
    "validation": ("split", "subset_seed", "validation"),
    "test": ("split",),
}


@dataclass(frozen=True)
class DataInput:
    """A part of a data set, as MLflow wants it: everything as text."""

    context: str
    """training | validation | test"""
    name: str
    digest: str
    """Of the manifest that the trial's key hashes, and of what chose the part's videos. MLflow takes 36 characters."""
    source: str
    """JSON: the folder of the videos."""
    schema: str
    profile: str
    """JSON: how many videos and classes, the manifest, and what chose the videos."""


def data_inputs(files: TrialFiles) -> list[DataInput]:
    """The parts of the trial's data set; none where its records do not say which set that is."""
    identity = files.identity() or {}
    data, manifest = identity.get("trial", {}).get("data"), identity.get("data")
    if data is None or manifest is None:
        return []
    record: dict[str, Any] = passed_over(lambda: read_json(files.data) or {}, {})
    # Shorter videos than a sample needs are left out: a matter of the clips.
    shortest = {"clip": identity["trial"]["clip"], "target": identity["trial"]["loss"]["target"]}
    found = []
    for context, names in CHOSEN_BY.items():
        chosen = {name: data[name] for name in names if name in data}
        profile: dict[str, Any] = {**chosen, "manifest": manifest}
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
