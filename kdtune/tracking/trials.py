"""The trials of a group, in the form that MLflow shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdtune.history.events import Asked
from kdtune.store import Store
from kdtune.tracking.record import TrackedTrial


def keys_of(asked: Asked, state: str) -> Sequence[str]:
    """Return the keys of a group's trials, with those of the fine-tunings if the group is complete."""
    return [*asked.keys, *(asked.finetuned if state == "complete" else ())]


def tracked_trial(
    store: Store,
    asked: Asked,
    key: str,
    state: str,
    objective: float | None = None,
    *,
    cached: bool = False,
    commit: Mapping[str, str] | None = None,
) -> TrackedTrial:
    """Return the trial `key` of a group, or a fine-tuning of it.

    `objective` is the group's; a fine-tuning has none of its own. `cached` says that the sweep found the trial in the
    store; otherwise the trial is tagged with `commit`, the code that trained it.
    """
    finetuned = key in asked.finetuned
    i = (asked.finetuned if finetuned else asked.keys).index(key)
    params = {
        **asked.params[i],
        "seed": asked.seeds[i],
        "control": asked.role == "control",
        "block": asked.block,
        "key": key,
    }
    tags = {"kdtune.kind": asked.kind, "kdtune.cached": str(cached).lower()}
    tags["kdtune.phase"] = "finetune" if finetuned else "train"
    tags |= {} if cached or commit is None else commit
    # A refit's objective is measured on test, and would look like one that the search used.
    own = None if finetuned or asked.kind == "refit" else objective
    return TrackedTrial(store.trial(key), _run_name(asked, i, finetuned), params, tags, state, own)


def _run_name(asked: Asked, i: int, finetuned: bool) -> str:
    """Return the run's name, distinctive parts first, because MLflow's table cuts names short."""
    if asked.block is None:
        return asked.group
    what = f"{asked.number} · {asked.params[i]['teacher']}" if asked.role == "candidate" else "control"
    what = f"refit of {what}" if asked.kind == "refit" else what
    seed = f" · seed {asked.seeds[i]}" if len(asked.seeds) > 1 else ""
    phase = " · finetune" if finetuned else ""
    return f"{what}{phase} · {asked.block}{seed}"
