"""The results of a sweep, read from its ledger and the TrialStore alone: no Ray, no Optuna, no MLflow, no torch."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from pydantic import ValidationError

from kdtune.config.sweep import SweepConfig
from kdtune.errors import Problem, StoreError
from kdtune.history.front import Front
from kdtune.names import is_name, quoted
from kdtune.parse import first_line
from kdtune.store import Store
from kdtune.store.files import read_json
from kdtune.store.records import SWEEP_RECORD, group_kind, ledger_rows, objectives_of, wanted

Row = dict[str, Any]


def sweep_results(store: Store, name: str, run_ids: dict[str, str]) -> dict[str, Any]:
    """{"sweep": name, "trials": […], "best": {block: trial}} as DESIGN 5; `run_ids` maps keys to MLflow runs.

    Trials stand by block: controls, then candidates by number. The best of a block has the best objective of its
    candidates (mean over their seeds); of several objectives a list, the Pareto set. Blocks are never held against each
    other. A sweep with `refit: true` has "refits" as well: controls and chosen candidates once more, trained on the
    whole training list, their objectives measured on test. Raises StoreError for an unknown name.
    """
    sweep = record_of(store, name)
    groups, again = groups_of(store, sweep), refits_of(store, sweep) if sweep.get("refit") else []
    store.fetch_trials(key for group, _ in groups + again for key in [*group["keys"], *group["finetuned"]])
    trials = [_trial(store, sweep, group, end, i, run_ids) for group, end in groups for i in range(len(group["seeds"]))]
    best = best_of if len(objectives_of(sweep)) == 1 else pareto_of
    found: Row = {"sweep": name, "trials": trials}
    found["best"] = {block: best(trials, block, sweep) for block in sweep["blocks"]}
    if not sweep.get("refit"):
        return found
    tested = on_test(sweep)
    refits = [_trial(store, tested, group, end, i, run_ids) for group, end in again for i in range(len(group["seeds"]))]
    return found | {"refits": [refit for refit in refits if refit["control"] or _is_chosen(refit, found["best"])]}


def on_test(record: Row) -> Row:
    """Return a sweep's record with its objectives on the test split, where those of its refits are measured."""
    return {**record, "objective": [{**objective, "split": "test"} for objective in objectives_of(record)]}


def _is_chosen(refit: Row, best: Row) -> bool:
    """Whether the search still chooses the refit's candidate: more candidates may have come to a better one."""
    found = best[refit["block"]] or []
    return refit["candidate"] in [trial["candidate"] for trial in (found if isinstance(found, list) else [found])]


def groups_of(store: Store, sweep: Row) -> list[tuple[Row, Row | None]]:
    """What the ledger says was asked of controls and candidates, with how it ended: by block, controls first."""
    return _groups(store, sweep, ("control", "candidate"))


def refits_of(store: Store, sweep: Row) -> list[tuple[Row, Row | None]]:
    """The same of what is trained again on the whole training list."""
    return _groups(store, sweep, ("refit",))


def _groups(store: Store, sweep: Row, kinds: tuple[str, ...]) -> list[tuple[Row, Row | None]]:
    asked: dict[str, Row] = {}
    ended: dict[str, Row] = {}
    for row in ledger_rows(store.sweep(sweep["name"]).folder / sweep["ledger"]):
        (asked if row["event"] == "asked" else ended)[row["group"]] = row
    blocks = list(sweep["blocks"])
    groups = [group for group in asked.values() if group["kind"] in kinds and wanted(group, sweep)]
    groups.sort(key=lambda group: (blocks.index(group["block"]), group_kind(group) == "candidate", group["number"]))
    return [(group, ended.get(group["group"])) for group in groups]


def record_of(store: Store, name: str) -> Row:
    """A sweep's record. Raises StoreError for an unknown name."""
    store.sweep(name).fetch()
    return store.sweep_record(name)


def config_of(record: Row) -> SweepConfig:
    """The sweep as it was run, --set included. Raises StoreError where an earlier version wrote the record."""
    if "config" not in record:
        what = "its record was written by an earlier version"
        raise StoreError([Problem(f"sweep {record['name']}", what, "run the sweep again: it trains nothing twice")])
    try:
        return SweepConfig.model_validate(record["config"])
    except ValidationError as error:  # an earlier version allowed what this one does not
        what = f"was run with what this version refuses: {first_line(error)}"
        raise StoreError([Problem(f"sweep {record['name']}", what, "its file, mended, and run again")]) from error


def keys_of(store: Store, name: str) -> list[str]:
    """Keys of everything that was trained of a sweep: teachers, controls, candidates and fine-tunings; or, where `name`
    is no sweep, of the one trial whose key begins so. Raises StoreError where there is none, or more than one."""
    files = store.sweep(name).fetch() if is_name(name) else None
    sweep = read_json(files.sweep, SWEEP_RECORD) if files is not None else None
    if files is not None and sweep is not None:
        asked = [row for row in ledger_rows(files.folder / sweep["ledger"]) if row["event"] == "asked"]
        keys = dict.fromkeys(key for row in asked for key in [*row["keys"], *row["finetuned"]])
        store.fetch_trials(keys)
        return [key for key in keys if store.trial(key).sound_rows()]
    found = [files.key for files in store.trials() if files.key.startswith(name)]
    if len(found) != 1:
        what = f"holds no sweep {quoted(name)}, and {len(found) or 'no'} trials whose keys begin so"
        raise StoreError([Problem(str(store.root), what)])
    return found


def _trial(store: Store, sweep: Row, group: Row, end: Row | None, i: int, run_ids: dict[str, str]) -> dict[str, Any]:
    files = store.trial(group["keys"][i])
    rows, result = files.sound_rows(), files.sound_result() or {}
    state = end["state"] if end is not None else ("running" if rows else "pending")
    if end is not None and end["stage"] is not None:
        # Another sweep may have trained the trial further: here it ended at this stage.
        last = next((row["epoch"] for row in rows if row.get("stage") == end["stage"]), 0)  # 0: its row is lost
        rows, result = [row for row in rows if row["epoch"] <= last], {}
    epochs = rows[-1]["epoch"] if rows else 0
    reached = [row for row in rows if "stage" in row]
    stages = {row["stage"]: row["evaluation"] for row in reached}
    finetuned = store.trial(group["finetuned"][i]) if group["finetuned"] and state != "pruned" else None
    if finetuned is not None:
        stages |= finetuned.stages()
        rows += finetuned.sound_rows()
    reached_end = {} if state != "complete" else {"stages": stages, "cost": result.get("cost") or {}}
    values = [objective_value(objective, reached_end) for objective in objectives_of(sweep)]
    return {
        "key": files.key,
        "candidate": group["number"] if group_kind(group) == "candidate" else None,
        "block": group["block"],
        "control": group_kind(group) == "control",
        "seed": group["seeds"][i],
        "params": group["params"][i],
        "state": state,
        "epochs": epochs,
        "stages": stages,
        "objective": values[0],
        "weights_sha256": result.get("weights_sha256") or (reached[-1]["weights_sha256"] if reached else None),
        "seconds": sum(row["seconds"] for row in rows),
        "cached": bool(end and end["cached"]),
        "cost": result.get("cost"),
        "profile": result.get("profile"),
        "mlflow_run_id": run_ids.get(files.key),
        "error": end["error"] if end is not None else None,
    } | (
        ({"objectives": values} if len(values) > 1 else {})
        | ({"spread": end["spread"]} if end is not None and end.get("spread") is not None else {})
        | ({"refits": group["refits"]["group"]} if group["kind"] == "refit" else {})
        | ({"finetune": None if finetuned is None else finetuned.key} if group["finetuned"] else {})
        | ({"earlier_profiles": result["earlier_profiles"]} if result.get("earlier_profiles") else {})
    )


def objective_value(objective: Row, reached: Row) -> float | None:
    """Of a trial that has `reached` its end: its stages and its cost."""
    if objective.get("cost"):
        return reached.get("cost", {}).get(objective["column"])
    stage = reached.get("stages", {}).get(objective["stage"])
    return None if stage is None else stage[objective["split"]][objective["column"]]


#: Fields of a profile that are a trial's own, or its data's: those may differ within one sweep on one machine.
OWN = ("frames", "threads", "precision", "torchvision")


def mixed_profiles(trials: list[dict[str, Any]]) -> str | None:
    """What differs between the machines and versions that the trials ran on, in words; None where nothing does."""
    seen: dict[str, list[str]] = {}
    for trial in trials:
        later = [trial["profile"]] if trial["profile"] is not None else []
        for profile in [entry["profile"] for entry in trial.get("earlier_profiles", [])] + later:
            for name in profile.keys() - OWN:
                # The fingerprint is of these two settings, which are the trial's own.
                settings = f" ({profile['threads']} threads, {profile['precision']})" if name == "arithmetic" else ""
                values = seen.setdefault(f"{name}{settings}", [])
                if str(profile[name]) not in values:
                    values.append(str(profile[name]))
    mixed = [f"{name} {' | '.join(values)}" for name, values in sorted(seen.items()) if len(values) > 1]
    if not mixed:
        return None
    return f"the trials ran under several profiles ({'; '.join(mixed)}): bits repeat only within one"


def best_of(trials: list[dict[str, Any]], block: str, sweep: dict[str, Any]) -> dict[str, Any] | None:
    """The first trial of the block's best candidate, or None while no candidate is complete."""
    candidates = _complete(trials, block)
    if not candidates:
        return None
    scores = {number: fmean(trial["objective"] for trial in found) for number, found in candidates.items()}
    sign = 1 if objectives_of(sweep)[0]["mode"] == "max" else -1
    # The lower number wins a tie.
    return candidates[max(scores, key=lambda number: (sign * scores[number], -number))][0]


def pareto_of(trials: list[dict[str, Any]], block: str, sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """The first trial of each of the block's candidates that no other is better than in one objective and at least as
    good in all (means over the seeds), by number."""
    candidates = _complete(trials, block)
    front = Front([objective["mode"] for objective in objectives_of(sweep)])
    for number, found in candidates.items():
        front.add(number, [fmean(values) for values in zip(*(trial["objectives"] for trial in found), strict=True)])
    return [candidates[number][0] for number in front.numbers()]


def _complete(trials: list[dict[str, Any]], block: str) -> dict[int, list[dict[str, Any]]]:
    """The trials of the block's candidates that have an objective, by number."""
    found: dict[int, list[dict[str, Any]]] = {}
    for trial in trials:
        if trial["block"] == block and trial["candidate"] is not None and trial["objective"] is not None:
            found.setdefault(trial["candidate"], []).append(trial)
    return found
