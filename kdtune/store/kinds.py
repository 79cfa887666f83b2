"""What the records of a store are, and what brings a damaged one back: one table for `store check` and its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kind:
    """A kind of record: a JSON file, or one with a JSON object in each line."""

    pattern: str
    """Of its path in the store."""
    what: str
    """What it says, for people."""
    remedy: str
    """What brings it back, for people."""
    needs: tuple[str, ...] = ()
    """What each object in it holds at least."""
    aside: bool = True
    """Whether a damaged one may be set aside: it is made again, or nothing needs it."""


_TRIAL = "the sweep or `train` that made the trial makes it again"
_NOTHING = "nothing depends on it"

#: In the order in which they are checked.
KINDS = (
    Kind("store.json", "the store's own name", "the next sweep makes another", ("version", "id")),
    Kind("manifests/*.json", "hashes of video files", "the next `data prepare` or sweep hashes the videos again"),
    Kind("measured/*.json", "how fast trials are", "`plan --measure` measures again"),
    Kind("trials/*/config.json", "what a trial is", _TRIAL),
    Kind("trials/*/result.json", "how a trial ended", _TRIAL, ("epochs", "stages", "weights_sha256")),
    Kind("trials/*/epochs.jsonl", "a trial's epochs", _TRIAL, ("epoch",)),
    Kind("trials/*/failure.json", "why a trial failed", _NOTHING, ("error",)),
    Kind("trials/*/data.json", "where a trial's videos were", _NOTHING),
    Kind("trials/*/machine.jsonl", "how busy the machine was", _NOTHING, ("epoch",)),
    Kind("trials/*/classes_*.json", "figures of each class", "replay the trial, or do without them"),
    Kind(
        "sweeps/*/sweep.json",
        "what a sweep is",
        "run the sweep again: it trains nothing twice",
        ("name", "ledger", "blocks", "objective", "stages"),
    ),
    Kind(
        "sweeps/*/ledger_*.jsonl",
        "what a sweep asked",
        "run the sweep again: it asks again what damaged lines asked, and trains nothing twice",
        ("event", "job"),
    ),
    Kind("sweeps/*/mlflow.jsonl", "ids of MLflow's runs", "`publish` finds them again", ("uri", "runs")),
    Kind("sweeps/*/driver.json", "who runs a sweep", "the sweep's next run", ("host", "pid", "since", "address")),
    Kind("sweeps/*/job.json", "a sweep's Ray job", "`submit` again", ("address", "submission_id")),
    Kind(
        "clips/*/verified.json",
        "when frames were checked",
        "the next `data prepare` or sweep on its videos checks them again",
    ),
)
#: What brings other files back.
REMEDIES = {
    "checkpoint": "the sweep or `train` that made the trial trains it on from what is sound, to the same bits",
    "imported": "import it again with `teacher import`",
    "kept": "replay the trial from its start instead of from this stage",
    "targets": "the next trial that needs it computes it again",
    "clips": "the next `data prepare` or sweep on its videos mends them, or makes them anew",
}


def records(root: Path) -> list[tuple[Path, Kind]]:
    """Return what is in the place of each record of the store in `root`, a folder included, with its kind.

    What begins with a dot is being made, and is left out.
    """
    found = ((path, kind) for kind in KINDS for path in sorted(root.glob(kind.pattern)))
    return [(path, kind) for path, kind in found if not any(p.startswith(".") for p in path.relative_to(root).parts)]
