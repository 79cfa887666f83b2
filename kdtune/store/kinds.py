"""The kinds of records in a store and how to recover each: one table for `store check` and its page in docs/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdtune.store.records import DEVICES, LEDGER_ROW, RESULT, SWEEP_RECORD


@dataclass(frozen=True)
class Kind:
    """A kind of record: a JSON file, or a file with a JSON object in each line."""

    pattern: str
    """Glob pattern of its path in the store."""
    what: str
    """Its content, in words."""
    remedy: str
    """How it is recovered, in words."""
    needs: tuple[str, ...] = ()
    """Keys that each object in it must have."""


_TRIAL = "the sweep or `train` that made the trial makes it again"
_SWEEP = "run the sweep again: it trains nothing twice"
_LEDGER = "run the sweep again: it asks again for the candidates of damaged lines, and trains nothing twice"
_HASHED = "the next `data prepare` or sweep hashes the videos again"
_CHECKED = "the next `data prepare` or sweep on its videos checks them again"
_NOTHING = "nothing depends on it"

#: In the order in which they are checked.
KINDS = (
    Kind("store.json", "the store's id", "the next sweep makes another", ("version", "id")),
    Kind("manifests/*.json", "hashes of video files", _HASHED, ("files",)),
    Kind("measured/*.json", "the speed of trials", "`plan --measure` measures again"),
    Kind("trials/*/config.json", "a trial's identity", _TRIAL),
    Kind("trials/*/result.json", "a trial's result", _TRIAL, RESULT),
    Kind("trials/*/epochs.jsonl", "a trial's epochs", _TRIAL, ("epoch",)),
    Kind("trials/*/failure.json", "why a trial failed", _NOTHING, ("error",)),
    Kind("trials/*/data.json", "the place of a trial's videos", _NOTHING),
    Kind("trials/*/machine.jsonl", "the machine's load", _NOTHING, ("epoch",)),
    Kind("trials/*/classes_*.json", "figures of each class", "replay the trial if you need them"),
    Kind("sweeps/*/sweep.json", "a sweep's description", _SWEEP, SWEEP_RECORD),
    Kind("sweeps/*/ledger_*.jsonl", "the candidates of a sweep", _LEDGER, LEDGER_ROW),
    Kind("sweeps/*/regret.jsonl", "what `report --regret` trained", "run `report --regret` again", ("group",)),
    Kind("sweeps/*/mlflow.jsonl", "ids of MLflow's runs", "`publish` finds them again", ("uri", "runs")),
    Kind("sweeps/*/driver.json", "a sweep's driver", "the sweep's next run", ("host", "pid", "since", "address")),
    Kind("sweeps/*/devices.json", "the blocks' device models", "the sweep's next run chooses again", DEVICES),
    Kind("sweeps/*/job.json", "a sweep's Ray job", "`submit` again", ("address", "submission_id")),
    Kind("clips/*/verified.json", "the last check of frames", _CHECKED),
)
#: How other files are recovered.
REMEDIES = {
    "checkpoint": "the sweep or `train` that made the trial resumes it from what is intact, to the same bits",
    "imported": "import it again with `teacher import`",
    "kept": "replay the trial from its start instead of from this stage",
    "targets": "the next trial that needs it computes it again",
    "clips": "the next `data prepare` or sweep on its videos repairs them or makes them again",
}


def records(root: Path) -> list[tuple[Path, Kind]]:
    """Return the path of each record of the store in `root` with its kind, even if a folder is in its place.

    Skips names that begin with a dot, which are still being written.
    """
    found = ((path, kind) for kind in KINDS for path in sorted(root.glob(kind.pattern)))
    return [(path, kind) for path, kind in found if not any(p.startswith(".") for p in path.relative_to(root).parts)]
