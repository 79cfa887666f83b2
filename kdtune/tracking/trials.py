"""From what the ledger says of a group to its trials as MLflow shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdtune.store import Store
from kdtune.store.records import group_kind
from kdtune.tracking.record import TrackedTrial

#: A row of the ledger: what was asked.
Row = Mapping[str, Any]


def keys_of(asked: Row, state: str) -> list[str]:
    """The group's trials in this state: fine-tunings are begun where it is complete."""
    return [*asked["keys"], *(asked["finetuned"] if state == "complete" else ())]


def tracked_trial(
    store: Store,
    asked: Row,
    key: str,
    state: str,
    objective: float | None = None,
    *,
    cached: bool = False,
    commit: Mapping[str, str] | None = None,
) -> TrackedTrial:
    """The trial `key` of a group, or a fine-tuning of it.

    `objective` is the group's; a fine-tuning has none of its own. `cached` says that the sweep found the trial in the
    store; one that it trained was trained by the code of `commit`.
    """
    finetuned = key in asked["finetuned"]
    i = asked["finetuned" if finetuned else "keys"].index(key)
    params = {
        **asked["params"][i],
        "seed": asked["seeds"][i],
        "control": group_kind(asked) == "control",
        "block": asked["block"],
        "key": key,
    }
    tags = {"kdtune.kind": asked["kind"], "kdtune.cached": str(cached).lower()}
    tags["kdtune.phase"] = "finetune" if finetuned else "train"
    tags |= {} if cached or commit is None else commit
    # A refit's is measured on test: beside those that the search went by it would look like one of them.
    own = None if finetuned or asked["kind"] == "refit" else objective
    return TrackedTrial(store.trial(key), _run_name(asked, i, finetuned), params, tags, state, own)


def _run_name(asked: Row, i: int, finetuned: bool) -> str:
    """What tells runs apart comes first: MLflow's table cuts names short."""
    if asked["block"] is None:
        return asked["group"]
    candidate = group_kind(asked) == "candidate"
    what = f"{asked['number']} · {asked['params'][i]['teacher']}" if candidate else "control"
    what = f"refit of {what}" if asked["kind"] == "refit" else what
    seed = f" · seed {asked['seeds'][i]}" if len(asked["seeds"]) > 1 else ""
    phase = " · finetune" if finetuned else ""
    return f"{what}{phase} · {asked['block']}{seed}"
